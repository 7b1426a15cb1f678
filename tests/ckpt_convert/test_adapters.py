"""Adapters alone, against the PyTorch library whose layout they have: both ways, to 1e-5."""

import json
import shutil
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
import peft
import pytest
import torch
from peft.tuners.lora.layer import LoraLayer
from safetensors.numpy import load_file, save_file

from ckpt_convert.__main__ import main
from ckpt_convert.adapters import Adapters, write_adapters
from ckpt_convert.architectures import ARCHITECTURES
from ckpt_convert.load import load
from ckpt_convert.network import load_adapted, load_network
from ckpt_convert.rules import export_weights
from ckpt_convert.source_config import write_source_config
from ckpt_convert.torch_oracle import TorchReranker, quiet_transformers
from ckpt_convert.weight_files import write_weights
from jaxrank.errors import InputError
from jaxrank.models.families import get_family
from jaxrank.models.lora import LoraConfig, add_lora
from jaxrank.models.module import (
    RerankerConfig,
    build_module,
    init_module,
    parameters,
)
from jaxrank.text.templates import TextConfig
from tests.families.comparison import random_batch, to_jax

pytestmark = [
    # PEFT asks transformers for a name that is deprecated, and tells what it saves besides.
    pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing. is deprecated:FutureWarning"),
    pytest.mark.filterwarnings("ignore:Setting .save_embedding_layers.:UserWarning"),
]
TOKEN_IDS = {f"{role}_token_id": id for id, role in enumerate(("cls", "pad", "eos", "sep"))}
LENGTHS = np.array([9, 6, 3])
LORA = LoraConfig(rank=3, alpha=5.0, dropout=0.1)
MAMBA = ("in_proj", "x_proj")  # PEFT refuses out_proj: transformers' fast path reads its weight

# Name -> family, head, our targets (None: the family's own), PEFT's targets in the other direction.
CASES: dict[str, tuple[str, Any, tuple[str, ...] | None, list[str]]] = {
    "bert": ("bert", "classification", None, ["query", "value", "output.dense"]),
    "bert-down": ("bert", "linear", ("down",), ["word_embeddings", "intermediate.dense"]),
    "roberta": ("roberta", "classification", None, ["query", "key"]),
    "opt": ("opt", "classification", None, ["embed_tokens", "q_proj", "fc1"]),
    "gpt_neox": ("gpt_neox", "linear", None, ["embed_in", "query_key_value", "dense_4h_to_h"]),
    "t5": ("t5", "classification", None, ["q", "v", "wi", "wo"]),
    "llama": ("llama", "classification", None, ["q_proj", "k_proj", "gate_proj"]),
    "mamba": ("mamba", "linear", MAMBA, ["x_proj", "embeddings"]),
}
SLOW: dict[str, tuple[str, Any, tuple[str, ...] | None, list[str]]] = {
    "bart": ("bart", "classification", None, ["q_proj", "fc2"]),
    "electra": ("electra", "classification", ("projection", "up"), ["embeddings_project"]),
    "modernbert": ("modernbert", "classification", None, ["Wqkv", "Wi"]),
    "xlm-roberta": ("xlm-roberta", "linear", None, ["query"]),
    "mamba2": ("mamba2", "linear", ("in_proj",), ["in_proj"]),
    "t5-linear": ("t5", "linear", ("query", "down"), ["o"]),
    "opt-linear": ("opt", "linear", ("token", "up"), ["k_proj"]),
}


class Case(NamedTuple):
    """A base on disk, adapters alone as we write them, and what both make together."""

    base: Path
    adapter: Path
    config: RerankerConfig
    adapters: dict[str, np.ndarray]
    merged: dict[str, np.ndarray]
    theirs: list[str]
    batch: dict[str, np.ndarray]


def shapes_with_adapters(config: RerankerConfig, lora: LoraConfig) -> dict[str, tuple[int, ...]]:
    def make() -> dict[str, jax.Array]:
        module = init_module(config, seed=0)
        add_lora(module, lora, seed=0)
        return parameters(module)

    return {path: spec.shape for path, spec in jax.eval_shape(make).items()}


def draw(shapes: dict[str, tuple[int, ...]]) -> dict[str, np.ndarray]:
    """Parameters that all differ, of sizes with which scores are of about one."""
    random = np.random.default_rng(0)
    values = {
        path: random.normal(0, 0.2, shape).astype(np.float32) for path, shape in shapes.items()
    }
    for path, value in values.items():
        if "norm" in path and path.endswith("weight"):
            value += 1
    return values


def is_half(path: str) -> bool:
    return path.endswith((".lora_a", ".lora_b"))


def merge(values: dict[str, np.ndarray], lora: LoraConfig) -> dict[str, np.ndarray]:
    """W + alpha / rank A B, in float64."""
    merged = {path: value.copy() for path, value in values.items() if not is_half(path)}
    for path in values:
        if path.endswith(".lora_a"):
            layer = path.removesuffix(".lora_a")
            name = f"{layer}.kernel" if f"{layer}.kernel" in merged else f"{layer}.embedding"
            a, b = values[path].astype(float), values[f"{layer}.lora_b"].astype(float)
            merged[name] = (merged[name] + lora.scaling * (a @ b)).astype(np.float32)
    return merged


def write_base(folder: Path, config: RerankerConfig, values: dict[str, np.ndarray]) -> None:
    folder.mkdir(parents=True)
    table = ARCHITECTURES[config.family].tables[config.head]
    write_weights(folder, export_weights(table, values))
    text = TextConfig("pair", max_length=16)
    written = write_source_config(config, text, token_ids=TOKEN_IDS)
    (folder / "config.json").write_text(written)


@pytest.fixture(scope="module")
def get_case(tmp_path_factory: pytest.TempPathFactory) -> Any:
    @cache
    def make(name: str) -> Case:
        family, head, targets, theirs = (CASES | SLOW)[name]
        preset = get_family(family).presets[f"{family.replace('_', '-')}-tiny"]
        config = RerankerConfig(family, replace(preset, vocab_size=60), head)
        values = draw(shapes_with_adapters(config, replace(LORA, targets=targets)))
        folder = tmp_path_factory.mktemp(name)
        base, adapter = folder / "base", folder / "adapter"
        whole = {path: value for path, value in values.items() if not is_half(path)}
        write_base(base, config, whole)
        adapter.mkdir()
        trained = {path: a for path, a in values.items() if is_half(path)}
        trained |= {path: a + 0.1 for path, a in values.items() if path.startswith("head.")}
        heads = {path: a for path, a in trained.items() if not is_half(path)}
        write_adapters(
            adapter, Adapters(str(base), LORA, values, base_vocabulary=60), config, heads
        )
        types = getattr(config.backbone, "type_vocab_size", 1)
        batch = random_batch(60, LENGTHS, types=types)
        return Case(base, adapter, config, trained, merge(values | trained, LORA), theirs, batch)

    return make


@pytest.fixture(params=[*CASES, *(pytest.param(name, marks=pytest.mark.slow) for name in SLOW)])
def case(request: pytest.FixtureRequest, get_case: Any) -> Case:
    return get_case(request.param)


def score(config: RerankerConfig, values: dict[str, np.ndarray], batch: Any) -> np.ndarray:
    """Scores of a plain model, compiled once for each architecture."""
    return np.asarray(_scorer(config)(values, to_jax(batch)))


@cache
def _scorer(config: RerankerConfig) -> Any:
    return jax.jit(
        lambda values, batch: build_module(config, values)(**batch),
    )


def torch_base(case: Case) -> TorchReranker:
    network = load_network(case.base, head=case.config.head)
    return TorchReranker.from_folder(case.base, case.config, network.parameters)


def torch_scores(reranker: TorchReranker, batch: dict[str, np.ndarray]) -> np.ndarray:
    with torch.no_grad():
        return reranker(batch)[1].numpy()


def test_peft_reads_our_adapters_with_the_merged_models_scores(case: Case):
    ours = score(case.config, case.merged, case.batch)
    reranker = torch_base(case)
    before = torch_scores(reranker, case.batch)
    with quiet_transformers():
        reranker.model = peft.PeftModel.from_pretrained(reranker.model, case.adapter).eval()
    if reranker.score is not None:  # a head that transformers' bare model has not
        stored = load_file(case.adapter / "adapter_model.safetensors")
        with torch.no_grad():
            for name, tensor in reranker.score.named_parameters():
                tensor.copy_(torch.from_numpy(stored[f"base_model.model.score.{name}"]))
    adapted = [n for n, m in reranker.model.named_modules() if isinstance(m, LoraLayer)]
    halves = [value for path, value in case.adapters.items() if path.endswith("lora_a")]
    assert len(adapted) == sum(len(value) if value.ndim == 3 else 1 for value in halves)
    np.testing.assert_allclose(torch_scores(reranker, case.batch), ours, atol=1e-5, rtol=1e-5)
    assert np.abs(before - ours).min() > 1e-3, "the adapters change nothing"


def test_our_own_adapters_come_back_as_the_merged_model(case: Case):
    network = load_adapted(case.adapter, case.base, head=case.config.head)
    assert network.fresh == ()
    assert network.parameters.keys() == case.merged.keys()
    for path, value in case.merged.items():
        np.testing.assert_allclose(network.parameters[path], value, atol=2e-6, err_msg=path)


def test_adapters_that_peft_made_are_merged_with_its_scores(case: Case, tmp_path: Path):
    reranker = torch_base(case)
    torch.manual_seed(3)
    has_other_name = case.config.family in ("t5", "bart")
    options = peft.LoraConfig(
        r=2,
        lora_alpha=3,
        target_modules=case.theirs,
        use_rslora=True,
        task_type="SEQ_CLS" if reranker.score is None else "FEATURE_EXTRACTION",
        modules_to_save=["classification_head"] if has_other_name else None,
    )
    with quiet_transformers():
        reranker.model = peft.get_peft_model(reranker.model, options).eval()
        with torch.no_grad():
            for tensor in reranker.model.parameters():
                if tensor.requires_grad:
                    tensor.add_(0.1 * torch.randn_like(tensor))
        reranker.model.save_pretrained(tmp_path)
    theirs = torch_scores(reranker, case.batch)
    network = load_adapted(tmp_path, case.base, head=case.config.head)
    assert network.source.config == case.config
    ours = score(case.config, network.parameters, case.batch)
    np.testing.assert_allclose(ours, theirs, atol=1e-5, rtol=1e-5)
    base = load_network(case.base, head=case.config.head).parameters
    assert np.abs(score(case.config, base, case.batch) - ours).min() > 1e-4


def test_a_token_table_that_grew_is_kept_whole(tmp_path: Path):
    """With and without an adapter of its own, and read back onto the smaller base."""
    for family, targets in {"bert": ("query",), "opt": ("token", "up")}.items():
        preset = get_family(family).presets[f"{family}-tiny"]
        config = RerankerConfig(family, replace(preset, vocab_size=23), "classification")
        values = draw(shapes_with_adapters(config, replace(LORA, targets=targets)))
        table = "backbone.embeddings.token" if family == "bert" else "backbone.token"
        whole = {path: value for path, value in values.items() if not is_half(path)}
        small = replace(config, backbone=replace(preset, vocab_size=20))
        base = tmp_path / family
        write_base(base, small, whole | {f"{table}.embedding": values[f"{table}.embedding"][:20]})
        (adapter := tmp_path / f"{family}-adapter").mkdir()
        heads = {path: value for path, value in whole.items() if path.startswith("head.")}
        write_adapters(
            adapter, Adapters(str(base), LORA, values, base_vocabulary=20), config, heads
        )
        network = load_adapted(adapter, base)
        assert network.source.config == config
        for path, value in merge(values, LORA).items():
            np.testing.assert_allclose(network.parameters[path], value, atol=2e-6, err_msg=path)


BERT_TARGETS = ["intermediate.dense", "key", "output.dense", "query", "value"]


@pytest.mark.parametrize(
    ("name", "their_targets", "their_head"),
    [
        ("bert", BERT_TARGETS, ["bert.pooler", "classifier"]),  # not "dense": the pooler has one
        ("bert-down", [f"encoder.layer.{layer}.output.dense" for layer in (0, 1)], None),
        ("roberta", None, ["classifier"]),
        ("t5", ["k", "o", "q", "v", "wi", "wo"], ["classification_head"]),
        ("gpt_neox", None, None),
        ("mamba", ["in_proj", "x_proj"], None),
    ],
)
def test_targets_are_named_by_the_shortest_endings_that_fit_no_other_module(
    get_case: Any, name: str, their_targets: list[str] | None, their_head: list[str] | None
):
    settings = json.loads((get_case(name).adapter / "adapter_config.json").read_text())
    if their_targets is not None:
        assert settings["target_modules"] == their_targets
    assert settings["modules_to_save"] == their_head
    assert (settings["r"], settings["lora_alpha"]) == (3, pytest.approx(5.0))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"peft_type": "IA3"}, "peft_type is 'IA3'; LORA is read"),
        ({"use_dora": True}, "use_dora is True, which is not read; merge the adapters with peft"),
        ({"bias": "all"}, "bias is 'all', which"),
        ({"rank_pattern": {"query": 4}}, "rank_pattern is"),
        ({"init_lora_weights": "pissa"}, "init_lora_weights is 'pissa'"),
        ({"r": 0}, "r, lora_alpha are 0, 5.0; positive"),
        ({"r": 4}, r"the pair is \(3, 64\), \(64, 3\); this base needs \(\(4, 64\), \(64, 4\)\)"),
        ({"base_model_name_or_path": None}, "names no base; name the model"),
        ({"base_model_name_or_path": "no/where"}, "its base: .*no/where.*--base"),
    ],
)
def test_what_is_no_plain_adapter_is_refused_in_one_line(
    get_case: Any, tmp_path: Path, change: dict[str, Any], said: str
):
    folder = copy_of(get_case("bert"), tmp_path)
    settings = json.loads((folder / "adapter_config.json").read_text())
    (folder / "adapter_config.json").write_text(json.dumps(settings | change))
    with pytest.raises(InputError, match=said) as raised:
        load(folder)
    assert "\n" not in str(raised.value)


def copy_of(case: Case, folder: Path) -> Path:
    return Path(shutil.copytree(case.adapter, folder / "adapter"))


QUERY = "base_model.model.bert.encoder.layer.0.attention.self.query"


@pytest.mark.parametrize(
    ("tensors", "said"),
    [
        ({f"{QUERY}.lora_A.weight": None}, r"1 without its other half: .*query\.lora_B"),
        ({"base_model.model.bert.encoder.layer.9.x.lora_A.weight": (3, 64)}, "1 not used: .*9"),
        ({f"{QUERY}.lora_magnitude_vector": (64,)}, "1 not used: .*magnitude"),
        ({"base_model.model.classifier.weight": (2, 64)}, r"is \(64, 2\); the base has \(64, 1\)"),
    ],
)
def test_tensors_that_do_not_fit_the_base_are_refused(
    get_case: Any, tmp_path: Path, tensors: dict[str, Any], said: str
):
    folder = copy_of(get_case("bert"), tmp_path)
    stored = load_file(folder / "adapter_model.safetensors")
    for name, shape in tensors.items():
        if shape is None:
            del stored[name]
        else:
            stored[name] = np.ones(shape, np.float32)
    save_file(stored, folder / "adapter_model.safetensors")
    with pytest.raises(InputError, match=said):
        load(folder)


def test_an_adapter_of_a_table_that_two_stacks_read_is_refused(get_case: Any, tmp_path: Path):
    folder = copy_of(get_case("t5"), tmp_path)
    stored = load_file(folder / "adapter_model.safetensors")
    for half, shape in {"A": (3, 60), "B": (64, 3)}.items():
        stored[f"base_model.model.transformer.shared.lora_embedding_{half}"] = np.ones(
            shape, np.float32
        )
    save_file(stored, folder / "adapter_model.safetensors")
    with pytest.raises(InputError, match="both stacks read this table"):
        load(folder)


def test_a_check_of_adapters_alone_says_to_merge_them_first(get_case: Any):
    with pytest.raises(InputError, match="merge it first: python -m ckpt_convert import"):
        main(["check", str(get_case("bert").adapter)])
