"""Our side of networks: a layer, a training step, a forward pass of a preset, with their work."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import nnx

from jaxrank.benchmarking.cases import Case, ModelShape, reranker_config
from jaxrank.benchmarking.floors import Work, count_layer
from jaxrank.benchmarking.operations import Prepared
from jaxrank.benchmarking.timing import CompiledSide
from jaxrank.errors import InputError
from jaxrank.models.bert import Bert
from jaxrank.models.causal import CausalDecoder
from jaxrank.models.implementations import Implementations
from jaxrank.models.lora import LoraConfig, add_lora, trained
from jaxrank.models.module import RerankerModule, init_module
from jaxrank.models.packing import visible_tokens
from jaxrank.models.state_space import StateSpaceBackbone
from jaxrank.shapes import Array, Float, Key
from jaxrank.training.optimizer import OptimizerConfig, make_optimizer
from jaxrank.training.step import init_state, make_train_step
from jaxrank.training.throughput import TRAINED, count_flops

TOTAL_STEPS = 10_000
"""Of the schedule of learning rates, which a measurement stays far below."""


def make_module(case: Case, implementation: str = "auto", **options: Any) -> RerankerModule:
    """The network of a case at a random start, the same for all who ask.

    Args:
        implementation: of the operation that mixes the tokens of the case's family.
        options: as those of `init_module`.

    Raises:
        InputError: the operation has no such implementation.
    """
    choice: Any = {case.operation: implementation}
    return init_module(
        reranker_config(case),
        seed=0,
        dtype=jnp.dtype(case.dtype),
        implementations=Implementations(**choice),
        **options,
    )


def make_hidden(case: Case, key: Key[Array, ""]) -> jax.Array:
    """Random vectors of the residual stream, as the layers of the case's family take them."""
    backbone = reranker_config(case).backbone
    is_wide = getattr(backbone, "residual_in_float32", False)
    shape = case.shape.batch, case.shape.length, backbone.hidden_size
    return jax.random.normal(key, shape, jnp.float32 if is_wide else jnp.dtype(case.dtype))


def make_ids(case: Case, key: Key[Array, ""]) -> jax.Array:
    """Random token ids of pairs, (B, L); none is one of the first few, which may be special."""
    vocabulary = reranker_config(case).backbone.vocab_size
    shape = case.shape.batch, case.shape.length
    return jax.random.randint(key, shape, 10, vocabulary, jnp.int32)


def layer_side(case: Case, implementation: str) -> Prepared:
    """One layer of a preset, with the family's own choice of what its backward pass recomputes.

    `backward` and `both` give the gradients of its weights and of its input.

    Raises:
        InputError: a family whose layers take more than a residual stream.
    """
    module = make_module(case, implementation)
    backbone: Any = module.backbone
    shared: dict[str, Any] = {}
    positions = jnp.arange(case.shape.length)
    if isinstance(backbone, CausalDecoder):
        shared = backbone.context(positions) | {"visible": visible_tokens(None, None)}
    elif isinstance(backbone, Bert):
        mask = jnp.ones((case.shape.batch, case.shape.length), bool)
        shared = {"visible": visible_tokens(mask, None)}
    elif not isinstance(backbone, StateSpaceBackbone):
        raise InputError(
            f"layer: family {module.config.family!r} has no layer that stands alone; known are "
            "BERT and its kin, the decoders, Mamba and Mamba-2"
        )
    graph, state = nnx.split(backbone.layers)

    def call(state: Any, hidden: Float[Array, "B L D"]) -> Any:
        return nnx.merge(graph, state)(hidden, **shared).hidden

    def both(state: Any, hidden: Any, cotangent: Any) -> Any:
        y, pullback = jax.vjp(call, state, hidden)
        return y, pullback(cotangent)

    def backward(pullback: Any, cotangent: Any) -> Any:
        return pullback(cotangent)

    work = count_layer(
        case,
        module.config.backbone,
        products=_in_products(state),
        is_causal=isinstance(backbone, CausalDecoder),
    )
    sets = [make_hidden(case, key) for key in case.random_keys]
    cotangents = [make_hidden(case, jax.random.fold_in(key, 1)) for key in case.random_keys]
    parameters = sum(leaf.size for leaf in jax.tree.leaves(state))
    if case.direction == "forward":
        side = CompiledSide(call, [(state, hidden) for hidden in sets], names=["y"])
    elif case.direction == "both":
        side = CompiledSide(both, [(state, *pair) for pair in zip(sets, cotangents, strict=True)])
    else:
        start = jax.jit(lambda hidden: jax.vjp(call, state, hidden)[1])
        pullbacks = [start(hidden) for hidden in sets]
        side = CompiledSide(backward, list(zip(pullbacks, cotangents, strict=True)))
    return Prepared(side, work, parameters)


def train_side(case: Case, implementation: str) -> Prepared:
    """A training step as `python -m jaxrank.train` does it: InfoNCE, AdamW, dropout, donation.

    The state goes from call to call; the batches are random pairs, all of the whole length.
    """
    shape = case.shape
    assert isinstance(shape, ModelShape)
    module = make_module(case, implementation)
    filter_: Any = nnx.Param
    if shape.lora_rank is not None:
        add_lora(module, LoraConfig(rank=shape.lora_rank), seed=0)
        filter_ = trained
    optimizer, schedule = make_optimizer(OptimizerConfig(), TOTAL_STEPS)
    graph, state = init_state(
        module, optimizer, key=jax.random.key(0), trained=filter_, release=True
    )
    flops = count_flops(module.config, state)
    step = make_train_step(graph, optimizer, schedule)
    groups = shape.batch // shape.candidates
    sizes = groups, shape.candidates, shape.length

    def batch(key: Array) -> dict[str, jax.Array]:
        return {
            "input_ids": make_ids(case, key).reshape(sizes),
            "mask": jnp.ones(sizes, bool),
            "token_type_ids": jnp.zeros(sizes, jnp.int32),
            "candidate_mask": jnp.ones(sizes[:2], bool),
        }

    batches = [(batch(key),) for key in case.random_keys]
    work = Work("model", matmul=flops.of(pairs=float(shape.batch), tokens=float(case.tokens)))
    parameters = _count((state.parameters, state.frozen))
    return Prepared(CompiledSide(step, batches, carried=state), [work], parameters)


def score_side(case: Case, implementation: str) -> Prepared:
    """Scores of a batch of random pairs, all of the whole length: no dropout, no gradients."""
    module = make_module(case, implementation)
    shape = case.shape
    graph, state = nnx.split(module)
    mask = jnp.ones((shape.batch, shape.length), bool)

    def call(state: Any, input_ids: Array, mask: Array) -> Array:
        return nnx.merge(graph, state)(input_ids, mask=mask)

    inputs = [(state, make_ids(case, key), mask) for key in case.random_keys]
    start = partial(init_state, module, optax.identity(), key=jax.random.key(0))
    abstract = jax.eval_shape(lambda: start()[1])
    # A third of a training step's: no gradients of activations, nor of parameters.
    flops = count_flops(module.config, abstract)
    asked = flops.of(pairs=float(shape.batch), tokens=float(case.tokens))
    work = Work("model", matmul=asked * 2 / TRAINED)
    return Prepared(CompiledSide(call, inputs, names=["scores"]), [work], _count(state))


def _in_products(state: Any) -> int:
    """How many numbers the linear layers' kernels hold."""
    flat = nnx.to_flat_state(state)
    return sum(variable.get_value().size for path, variable in flat if path[-1] == "kernel")


def _count(trees: Any) -> int:
    return sum(leaf.size for leaf in jax.tree.leaves(trees))
