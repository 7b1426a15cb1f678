"""Transformers' layers, training steps and forward passes, of our configurations."""

import re
import warnings
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from ckpt_convert.architectures import ARCHITECTURES
from ckpt_convert.config_format import write_config
from ckpt_convert.rules import export_weights
from ckpt_convert.torch_oracle import quiet_transformers
from jaxrank.benchmarking.cases import Case, ModelShape, reranker_config
from jaxrank.benchmarking.networks import make_hidden, make_ids, make_module
from jaxrank.benchmarking.rivals import RivalMissingError
from jaxrank.models.families import get_family
from jaxrank.models.lora import LoraConfig
from jaxrank.models.module import parameters
from jaxrank.training.optimizer import OptimizerConfig
from scripts.pytorch_rivals.torch_side import TorchSide, device, need, need_same_device, tensor

Call = Callable[..., Any]


def transformers_network(case: Case, *, is_compiled: bool = False) -> TorchSide | None:
    """A layer, a training step or a forward pass; None for other subjects."""
    makers = {"layer": _layer, "train": _train, "score": _score}
    if case.subject not in makers:
        return None
    need("torch", "transformers")
    need_same_device()
    import torch

    # JAX's default for float32 on a GPU.
    torch.set_float32_matmul_precision("high")
    assert isinstance(case.shape, ModelShape)
    if is_compiled and case.operation == "selective_scan" and not _has_kernels():
        raise RivalMissingError("its scan is a loop over tokens, which takes hours to compile")

    def compiled(function: Call) -> Call:
        return torch.compile(function) if is_compiled else function

    return makers[case.subject](case, compiled)


def _layer(case: Case, compiled: Callable[[Call], Call]) -> TorchSide:
    """One layer with our weights; `backward` and `both` give gradients of weights and input.

    Nothing is dropped, on either side.
    """
    import torch

    model = _backbone(case, with_our_weights=True).eval()
    layer, options = _first_layer(model, case)
    weights = [weight for weight in layer.parameters() if weight.requires_grad]
    run = compiled(layer)

    def call(hidden: Any) -> Any:
        with _autocast(case):
            result = run(hidden, **options)
        return result[0] if isinstance(result, tuple) else result

    def forward(hidden: Any) -> Any:
        with torch.no_grad():
            return call(hidden)

    def gradients(y: Any, hidden: Any, cotangent: Any, *, keep: bool) -> Any:
        return torch.autograd.grad(y, [hidden, *weights], cotangent.to(y.dtype), retain_graph=keep)

    def both(hidden: Any, cotangent: Any) -> Any:
        return gradients(call(hidden), hidden, cotangent, keep=False)

    def backward(y: Any, hidden: Any, cotangent: Any) -> Any:
        return gradients(y, hidden, cotangent, keep=True)

    sets = [tensor(make_hidden(case, key)) for key in case.random_keys]
    cotangents = sets[1:] + sets[:1]
    count = sum(weight.numel() for weight in weights)
    if case.direction == "forward":
        inputs = [(hidden,) for hidden in sets]
        return TorchSide(forward, inputs, names=["y"], parameters=count)
    for hidden in sets:
        hidden.requires_grad_()
    if case.direction == "both":
        return TorchSide(both, list(zip(sets, cotangents, strict=True)), parameters=count)
    results = [call(hidden) for hidden in sets]
    return TorchSide(backward, list(zip(results, sets, cotangents, strict=True)), parameters=count)


def _train(case: Case, compiled: Callable[[Call], Call]) -> TorchSide:
    """Cross-entropy over groups, AdamW, dropout as ours: a step as one writes it in PyTorch."""
    import torch

    shape = case.shape
    assert isinstance(shape, ModelShape)
    model, head = _backbone(case).train(), _head(case)
    trained = [*model.parameters(), *head.parameters()]
    if shape.lora_rank is not None:
        need("peft")
        if "out_proj" in get_family(reranker_config(case).family).lora_targets:
            raise RivalMissingError("PEFT adapts no out_proj of a Mamba, which ours does")
        model = _with_adapters(case, model, shape.lora_rank)
        trained = [weight for weight in model.parameters() if weight.requires_grad]
        trained += head.parameters()
    count = sum(p.numel() for p in [*model.parameters(), *head.parameters()])
    ours = OptimizerConfig()
    optimizer = torch.optim.AdamW(
        trained, lr=ours.learning_rate, weight_decay=ours.weight_decay, fused=True
    )
    score = compiled(_scoring(case, model, head))
    groups = shape.batch // shape.candidates
    target = torch.zeros(groups, dtype=torch.long, device=device())

    def step(ids: Any) -> Any:
        optimizer.zero_grad()
        with _autocast(case):
            scores = score(ids)
        grouped = scores.float().reshape(groups, shape.candidates)
        loss = torch.nn.functional.cross_entropy(grouped, target)
        loss.backward()
        optimizer.step()
        return loss.detach()

    batches = [(tensor(make_ids(case, key)).long(),) for key in case.random_keys]
    return TorchSide(step, batches, parameters=count)


def _score(case: Case, compiled: Callable[[Call], Call]) -> TorchSide:
    """Scores with our weights, in inference mode."""
    import torch

    model, head = _backbone(case, with_our_weights=True).eval(), _head(case, is_ours=True)
    score = compiled(_scoring(case, model, head))

    def call(ids: Any) -> Any:
        with torch.inference_mode(), _autocast(case):
            return score(ids)

    batches = [(tensor(make_ids(case, key)).long(),) for key in case.random_keys]
    count = sum(p.numel() for p in [*model.parameters(), *head.parameters()])
    return TorchSide(call, batches, names=["scores"], parameters=count)


def _scoring(case: Case, model: Any, head: Any) -> Call:
    """From token ids to scores, by the vector that stands for the text."""
    import torch

    config = reranker_config(case)
    place = -1 if get_family(config.family).pooling == "last" else 0
    has_decoder = config.backbone.decoder_layers is not None

    def score(ids: Any) -> Any:
        more = {}
        if has_decoder:
            start = config.backbone.decoder_start_token_id
            more["decoder_input_ids"] = torch.full((len(ids), 1), start, device=ids.device)
        hidden = model(input_ids=ids, use_cache=False, **more).last_hidden_state
        return head(hidden[:, place])[:, 0]

    return score


def _backbone(case: Case, *, with_our_weights: bool = False) -> Any:
    """Transformers' model without a head, of our configuration and on the device."""
    import transformers

    config = reranker_config(case)
    architecture = ARCHITECTURES[config.family]
    model_class = getattr(transformers, architecture.classes["linear"])
    attributes = write_config(architecture.config, config.backbone)
    with quiet_transformers(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = model_class(model_class.config_class(**attributes))
    if getattr(model, "pooler", None) is not None:
        model.pooler = None  # linear heads read the hidden vectors
    if with_our_weights:
        _load(model, case)
    return model.to(device())


def _load(model: Any, case: Case) -> None:
    """Put our weights into transformers' model, every one of them."""
    import torch

    config = reranker_config(case)
    table = ARCHITECTURES[config.family].tables["linear"]
    exported = export_weights(table, _ours(case))
    names = model.state_dict().keys()
    prefix = f"{model.base_model_prefix}."
    weights = {
        name.removeprefix(prefix): torch.tensor(array)
        for name, array in exported.items()
        if not name.startswith("score.")
    }
    missing, unexpected = model.load_state_dict(weights, strict=False)
    shared = {id(value) for name, value in model.named_parameters() if name not in missing}
    lost = [n for n, value in model.named_parameters() if n in missing and id(value) not in shared]
    assert not lost, f"of {len(names)} weights ours lack {lost[:3]}"
    assert not unexpected, f"theirs lack {unexpected[:3]}"


def _ours(case: Case) -> Mapping[str, np.ndarray]:
    return {name: np.asarray(value) for name, value in parameters(make_module(case)).items()}


def _head(case: Case, *, is_ours: bool = False) -> Any:
    """A linear layer to one score."""
    import torch

    head = torch.nn.Linear(reranker_config(case).backbone.output_size, 1)
    if is_ours:
        weights = _ours(case)
        with torch.no_grad():
            head.weight.copy_(torch.tensor(weights["head.score.kernel"].T))
            head.bias.copy_(torch.tensor(weights["head.score.bias"]))
    return head.to(device())


def _first_layer(model: Any, case: Case) -> tuple[Any, dict[str, Any]]:
    """The model's first layer and what it is called with beside the hidden vectors."""
    import torch

    if hasattr(model, "rotary_emb"):
        positions = torch.arange(case.shape.length, device=device())[None]
        hidden = torch.zeros(1, device=device())
        layer = model.layers[0]
        return layer, {
            "attention_mask": None,
            "position_embeddings": model.rotary_emb(hidden, positions),
        }
    if hasattr(model, "decoder"):
        return model.decoder.layers[0], {"attention_mask": None}
    if hasattr(model, "encoder"):
        return model.encoder.layer[0], {"attention_mask": None}
    return model.layers[0], {}


def _with_adapters(case: Case, model: Any, rank: int) -> Any:
    """PEFT's adapters in the same layers as ours."""
    import peft

    config = reranker_config(case)
    rules = ARCHITECTURES[config.family].tables["linear"].rules
    targets = get_family(config.family).lora_targets
    modules = {
        rule.theirs.rpartition(".")[0].removeprefix(f"{model.base_model_prefix}.")
        for rule in rules
        for target in targets
        if re.search(rf"\.{re.escape(target)}\.(kernel|embedding)$", rule.ours)
    }
    pattern = "|".join(re.escape(m).replace(r"\{layer\}", r"\d+") for m in sorted(modules))
    lora = LoraConfig(rank=rank)
    adapted = peft.LoraConfig(
        r=rank,
        lora_alpha=int(lora.scaling * rank),
        lora_dropout=lora.dropout,
        target_modules=pattern,
    )
    return peft.get_peft_model(model, adapted)


def _autocast(case: Case) -> Any:
    """bfloat16 where that is asked for."""
    import torch

    return torch.autocast(device(), dtype=torch.bfloat16, enabled=case.dtype == "bfloat16")


def _has_kernels() -> bool:
    try:
        need("mamba_ssm", "causal_conv1d")
    except RivalMissingError:
        return False
    return True
