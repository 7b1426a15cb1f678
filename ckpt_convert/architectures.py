"""The architectures that can be converted, by transformers' `model_type`."""

from collections.abc import Mapping
from types import MappingProxyType

from ckpt_convert import bart, bert, gpt_neox, llama, mamba, mamba2, modernbert, opt, t5
from ckpt_convert.architecture import Architecture

ARCHITECTURES: Mapping[str, Architecture] = MappingProxyType(
    {
        "bert": bert.ARCHITECTURE,
        "roberta": bert.ROBERTA,
        "xlm-roberta": bert.XLM_ROBERTA,
        "electra": bert.ELECTRA,
        "modernbert": modernbert.ARCHITECTURE,
        "mamba": mamba.ARCHITECTURE,
        "mamba2": mamba2.ARCHITECTURE,
        "gpt_neox": gpt_neox.ARCHITECTURE,
        "llama": llama.ARCHITECTURE,
        "opt": opt.ARCHITECTURE,
        "bart": bart.ARCHITECTURE,
        "t5": t5.ARCHITECTURE,
    }
)
