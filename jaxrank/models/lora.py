"""Low-rank adaptation (LoRA): frozen linear layers with a trained product of two thin matrices.

Hu et al., 2021, arXiv 2106.09685: y = x W + (alpha / rank) x A B, A random, B zero at the start. An
adapter sits in the layer that it adapts, whose kernel and bias keep their places, so weight tables
go on matching. In a stack of layers A and B have the layer axis in front, as all parameters have.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from jaxrank.errors import InputError
from jaxrank.models.encoder_decoder import EncoderDecoder
from jaxrank.models.families import get_family
from jaxrank.models.layers import Embedding
from jaxrank.models.linear import Linear
from jaxrank.models.module import RerankerModule
from jaxrank.ops.dropout import dropout
from jaxrank.shapes import Array, Float, Int, Key

_TOKEN_TABLES = ("token", "embedding")  # all other tables are small, and trained by no paper's LoRA
_KEY_USE = 2  # RerankerModule takes the uses 0 and 1 of a key


@dataclass(frozen=True)
class LoraConfig:
    """Low-rank adapters; without a rank all parameters are trained."""

    rank: int | None = None
    """Width of the adapters. RankMamba's paper: 32; its code: 64. Null: no adapters."""

    alpha: float | None = None
    """Their results are multiplied by alpha / rank. RankMamba's code: 128. Null: twice the rank, as
    in that code."""

    dropout: float = 0.1
    """Dropout rate on what goes into an adapter; RankMamba's code: 0.1."""

    targets: tuple[str, ...] | None = None
    """Names of the layers that get one, e.g. [query, value]. Null: the family's own list, as in
    RankMamba's code where that has one."""

    @property
    def scaling(self) -> float:
        """What the adapters' results are multiplied by."""
        assert self.rank is not None
        return 2.0 if self.alpha is None else self.alpha / self.rank


class DropoutKey(nnx.Variable):
    """An adapter's key for dropout; there is one only inside a training step."""


class LoraLinear(Linear):
    """A linear layer with an adapter; starts as torch's PEFT does, A uniform and B zero.

    Args:
        base: the layer, or a stack of layers; its kernel and bias become this one's.
        rank: width of the adapter.
        scaling: alpha / rank.
        dropout_rate: on the adapter's input, under `with_dropout_keys` alone.
        rngs: `params` draws A.
    """

    def __init__(
        self, base: nnx.Linear, *, rank: int, scaling: float, dropout_rate: float, rngs: nnx.Rngs
    ) -> None:
        super().__init__(**_options(base), rngs=rngs)
        _take_parameters(self, base)
        *layers, inputs, outputs = base.kernel.get_value().shape
        bound = inputs**-0.5
        start = jax.random.uniform(
            rngs.params(), (*layers, inputs, rank), jnp.float32, -bound, bound
        )
        self.lora_a = nnx.LoRAParam(start)
        self.lora_b = nnx.LoRAParam(jnp.zeros((*layers, rank, outputs), jnp.float32))
        self.scaling = scaling
        self.dropout_rate = dropout_rate
        self.dropout_key: DropoutKey | None = nnx.data(None)

    def __call__(self, inputs: Float[Array, "... D"], out_sharding: Any = None) -> Array:
        """The layer's result plus the adapter's."""
        narrow, b = self._narrow(inputs)
        return super().__call__(inputs, out_sharding) + (narrow @ b) * self.scaling

    def in_parts(self, inputs: Float[Array, "... D"], ends: Sequence[int]) -> list[Array]:
        """The same as parts; see Linear."""
        narrow, b = self._narrow(inputs)
        parts = zip(super().in_parts(inputs, ends), jnp.split(b, ends, axis=1), strict=True)
        return [part + (narrow @ b) * self.scaling for part, b in parts]

    def _narrow(self, inputs: Array) -> tuple[Array, Array]:
        """The inputs times A, with dropout, and B."""
        key = None if self.dropout_key is None else self.dropout_key[...]
        x, a, b = self.promote_dtype(
            (dropout(inputs, self.dropout_rate, key), self.lora_a[...], self.lora_b[...]),
            dtype=self.dtype,
        )
        return x @ a, b

    def merged(self) -> Linear:
        """The plain layer that computes the same."""
        plain = Linear(**_options(self), rngs=nnx.Rngs(params=0))
        _take_parameters(plain, self)
        plain.kernel = nnx.Param(_merge(self.kernel, self))
        return plain


class LoraEmbedding(Embedding):
    """A token table with an adapter; starts as torch's PEFT does, A zero and B normal.

    Nothing is dropped: PEFT does not either. Arguments as those of LoraLinear.
    """

    def __init__(self, base: Embedding, *, rank: int, scaling: float, rngs: nnx.Rngs) -> None:
        self.embedding = base.embedding
        self.dtype = base.dtype
        *layers, rows, width = base.embedding.get_value().shape
        self.lora_a = nnx.LoRAParam(jnp.zeros((*layers, rows, rank), jnp.float32))
        self.lora_b = nnx.LoRAParam(jax.random.normal(rngs.params(), (*layers, rank, width)))
        self.scaling = scaling

    def __call__(self, ids: Int[Array, "..."]) -> Float[Array, "... D"]:
        """The ids' vectors plus the adapter's."""
        narrow = jnp.take(self.lora_a[...], ids, axis=0).astype(self.dtype)
        return super().__call__(ids) + (narrow @ self.lora_b[...].astype(self.dtype)) * self.scaling

    def merged(self) -> Embedding:
        """The plain table that yields the same."""
        *_, width = self.embedding.get_value().shape
        plain = Embedding(
            1, width, standard_deviation=0.0, dtype=self.dtype, rngs=nnx.Rngs(params=0)
        )
        plain.embedding = nnx.Param(_merge(self.embedding, self))
        return plain


def add_lora(module: RerankerModule, config: LoraConfig, *, seed: int) -> tuple[str, ...]:
    """Put an adapter into every targeted layer of the backbone, in place; the scores stay.

    Args:
        config: with a rank.
        seed: draws the start.

    Returns:
        The names of the targets.

    Raises:
        InputError: a target that is no layer of this model, with those that are.
    """
    assert config.rank is not None
    layers = dict(_adaptable(module))
    targets = _resolve_targets(module, config, layers)
    rngs = nnx.Rngs(params=jax.random.fold_in(jax.random.key(seed), _KEY_USE))
    options: dict[str, Any] = {"rank": config.rank, "scaling": config.scaling, "rngs": rngs}
    for path, layer in layers.items():
        if not any(_matches(path, target) for target in targets):
            continue
        if isinstance(layer, nnx.Linear):
            _replace(module, path, LoraLinear(layer, dropout_rate=config.dropout, **options))
        else:
            _replace(module, path, LoraEmbedding(layer, **options))
    return targets


def merge_lora(module: RerankerModule) -> RerankerModule:
    """A module without adapters that computes the same; `module` stays as it is.

    W + (alpha / rank) A B in float32. Layers without an adapter share their arrays with `module`.
    """
    merged = nnx.merge(*nnx.split(module))
    for path, layer in _adapters(merged):
        _replace(merged, path, layer.merged())
    return merged


def with_dropout_keys(module: RerankerModule, key: Key[Array, ""] | None) -> RerankerModule:
    """A module whose adapters drop parts of their inputs, drawn by `key`; None: as it is.

    Layers are called without a key of their own, so each adapter gets one beforehand, inside of the
    traced step. Those of a stack get one a layer.
    """
    adapters = [layer for _, layer in _adapters(module) if isinstance(layer, LoraLinear)]
    if key is None or not any(layer.dropout_rate for layer in adapters):
        return module
    keyed = nnx.merge(*nnx.split(module))
    key = jax.random.fold_in(key, _KEY_USE)
    for number, (_, layer) in enumerate(_adapters(keyed)):
        if isinstance(layer, LoraLinear):
            stack = layer.lora_a.get_value().shape[:-2]
            layer.dropout_key = DropoutKey(jax.random.split(jax.random.fold_in(key, number), stack))
    return keyed


def _in_head(path: tuple[Any, ...], _: Any) -> bool:
    return path[0] == "head"


trained = nnx.Any(nnx.LoRAParam, _in_head)
"""The NNX filter of what is trained beside a frozen backbone: the adapters and the score head."""


def count_trained(module: RerankerModule) -> tuple[int, int]:
    """How many numbers `trained` matches, and how many the model without adapters has."""
    chosen, adapters, rest = (
        sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(state))
        for state in nnx.split(module, _in_head, nnx.LoRAParam, ...)[1:]
    )
    return chosen + adapters, chosen + rest


def _resolve_targets(
    module: RerankerModule, config: LoraConfig, layers: dict[tuple[Any, ...], Any]
) -> tuple[str, ...]:
    """The targets of this model; all of those named must be there."""
    family = module.config.family
    if config.targets is None:
        targets = get_family(family).lora_targets
        return tuple(name for name in targets if any(_matches(path, name) for path in layers))
    for target in config.targets:
        if not any(_matches(path, target) for path in layers):
            known = ", ".join(sorted({path[-1] for path in layers}))
            raise InputError(f"lora.targets: no layer {target!r} in {family}; there are {known}")
    return config.targets


def _adaptable(module: RerankerModule) -> Iterator[tuple[tuple[Any, ...], Any]]:
    """Paths and layers that can have an adapter.

    Not an encoder-decoder's token table: both stacks read it, and PEFT's files have no name for an
    adapter that is in two places.
    """
    has_own_table = not isinstance(module.backbone, EncoderDecoder)
    for path, layer in nnx.iter_modules(module):
        if path[:1] != ("backbone",):
            continue
        is_table = isinstance(layer, Embedding) and path[-1] in _TOKEN_TABLES
        if isinstance(layer, nnx.Linear) or (is_table and has_own_table):
            yield path, layer


def _adapters(module: RerankerModule) -> list[tuple[tuple[Any, ...], Any]]:
    """Paths and layers that have an adapter."""
    layers = nnx.iter_modules(module)
    return [(p, layer) for p, layer in layers if isinstance(layer, LoraLinear | LoraEmbedding)]


def _matches(path: tuple[Any, ...], target: str) -> bool:
    """Whether `target` is the layer's name, or the end of its path, as in `feed_forward.up`."""
    parts = tuple(target.split("."))
    return path[-len(parts) :] == parts


def _replace(module: RerankerModule, path: tuple[Any, ...], layer: nnx.Module) -> None:
    parent: Any = module
    for name in path[:-1]:
        parent = getattr(parent, name)
    setattr(parent, path[-1], layer)


def _options(layer: nnx.Linear) -> dict[str, Any]:
    """What makes a linear layer like this one, with zeros where its parameters go."""
    return {
        "in_features": layer.in_features,
        "out_features": layer.out_features,
        "use_bias": layer.use_bias,
        "dtype": layer.dtype,
        "precision": layer.precision,
        "dot_general": layer.dot_general,
        "promote_dtype": layer.promote_dtype,
        "preferred_element_type": layer.preferred_element_type,
        "kernel_init": jax.nn.initializers.zeros,
    }


def _take_parameters(layer: nnx.Linear, source: nnx.Linear) -> None:
    layer.kernel = source.kernel
    if source.bias is not None:
        layer.bias = source.bias


def _merge(weight: nnx.Param, adapter: LoraLinear | LoraEmbedding) -> jax.Array:
    """W + (alpha / rank) A B, in full float32 whatever the device would rather multiply in."""
    a, b = (part[...].astype(jnp.float32) for part in (adapter.lora_a, adapter.lora_b))
    product = jnp.matmul(a, b, precision=jax.lax.Precision.HIGHEST)
    return weight[...].astype(jnp.float32) + adapter.scaling * product
