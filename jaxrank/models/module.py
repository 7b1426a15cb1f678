"""RerankerModule: a backbone, the vector that stands for the text, and a score head.

Also the flat view of its parameters: one float32 array under one "."-joined path each, which is
what weights on disk are mapped to.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import jax
from flax import nnx
from jax import numpy as jnp
from jax.typing import ArrayLike, DTypeLike

from jaxrank.errors import InputError
from jaxrank.models.encoder_decoder import decoder_packing
from jaxrank.models.families import get_family, state_arrays
from jaxrank.models.heads import LinearHead, pool_texts
from jaxrank.models.implementations import Implementations, choose_implementations
from jaxrank.models.layers import split_key
from jaxrank.models.packing import Packing
from jaxrank.models.stack import Remat
from jaxrank.models.states import State
from jaxrank.shapes import Array, Bool, Float32, Int, Key

HeadName = Literal["linear", "classification"]

AUTOMATIC = Implementations()


@dataclass(frozen=True)
class RerankerConfig:
    """A reranker's architecture."""

    family: str
    """Name of the architecture, a key of FAMILIES."""

    backbone: Any
    """The backbone's configuration, of the family's own class."""

    head: HeadName = "linear"
    """How a vector becomes a score: `linear` is one layer with bias, as in both papers;
    `classification` is the head of transformers' own class, so PyTorch can read the model."""

    head_dropout: float = 0.1
    """Dropout rate in the head, in training only; 0.1 as in the papers' code and in BERT. The
    `classification` head of decoders, one linear layer, has no dropout whatever stands here."""

    def __post_init__(self) -> None:
        family = get_family(self.family)
        if not isinstance(self.backbone, family.config_class):
            raise InputError(
                f"RerankerConfig: backbone is a {type(self.backbone).__name__}; family "
                f"{self.family!r} needs a {family.config_class.__name__}"
            )
        if self.head not in ("linear", "classification"):
            raise InputError(
                f"RerankerConfig: head is {self.head!r}; known are 'linear' and 'classification'"
            )
        if self.head == "classification" and family.classification_head is None:
            raise InputError(
                f"RerankerConfig: head is 'classification', which family {self.family!r} does "
                "not have; use 'linear'"
            )
        if not 0 <= self.head_dropout < 1:
            raise InputError(
                f"RerankerConfig: head_dropout is {self.head_dropout}; it must be in [0, 1)"
            )


class RerankerModule(nnx.Module):
    """Scores texts: encode, take the vector that stands for the text, apply the head.

    Args:
        config: the architecture.
        dtype: what the backbone computes in; parameters and scores are float32.
        rngs: its `params` stream draws the start.
        remat: what layers keep for the backward pass, see LayerStack; None: the family's choice.
        unroll: layers laid out in one step of the scan over layers.
    """

    def __init__(
        self,
        config: RerankerConfig,
        *,
        dtype: DTypeLike = jnp.float32,
        rngs: nnx.Rngs,
        remat: Remat | None = None,
        unroll: int = 1,
    ) -> None:
        family = get_family(config.family)
        make_head: Any = partial(LinearHead, pooling=family.pooling)
        if config.head == "classification":
            make_head = family.classification_head
        self.config = config
        self.backbone = family.backbone(
            config.backbone, dtype=dtype, rngs=rngs, remat=remat, unroll=unroll
        )
        self.head = make_head(config.backbone, dropout_rate=config.head_dropout, rngs=rngs)

    def __call__(
        self,
        input_ids: Int[Array, "B L"],
        *,
        mask: Bool[Array, "B L"],
        token_type_ids: Int[Array, "B L"] | None = None,
        key: Key[Array, ""] | None = None,
    ) -> Float32[Array, " B"]:
        """Score right-padded texts; a `key` turns dropout on."""
        backbone_key, head_key = split_key(key, 2)
        hidden = self.encode(input_ids, mask=mask, token_type_ids=token_type_ids, key=backbone_key)
        return self.head(hidden, mask=mask, key=head_key)

    def score_packed(
        self,
        input_ids: Int[Array, "B L"],
        *,
        packing: Packing,
        token_type_ids: Int[Array, "B L"] | None = None,
        key: Key[Array, ""] | None = None,
    ) -> Float32[Array, "B T"]:
        """Score the texts of each row, up to T, as if each had a row of its own.

        Where a row has fewer, some finite numbers stand in their places. A `key` turns dropout on.
        """
        backbone_key, head_key = split_key(key, 2)
        hidden = self.encode(
            input_ids,
            mask=packing.segment_ids > 0,
            token_type_ids=token_type_ids,
            packing=packing,
            key=backbone_key,
        )
        if "decoder_input" in self.encode_options:
            packing = decoder_packing(packing, **self.encode_options)
        pooled_BTD = pool_texts(hidden, packing, self.head.pooling)
        batch, texts, width = pooled_BTD.shape
        # The head sees texts of one vector, which is the one that it takes.
        alone = pooled_BTD.reshape(batch * texts, 1, width)
        scores = self.head(alone, mask=jnp.ones(alone.shape[:2], bool), key=head_key)
        return scores.reshape(batch, texts)

    def read_prefix(self, input_ids: Int[Array, "B L"], *, mask: Bool[Array, "B L"]) -> State:
        """Read the beginnings of texts, right-padded: the state after each row's last real token.

        Raises:
            InputError: what this family makes of a beginning depends on what comes after it.
        """
        state_arrays(self.config.family, self.config.backbone)
        _, state = self.encode(input_ids, mask=mask, return_final_state=True)
        return state

    def score_continuation(
        self,
        state: State,
        input_ids: Int[Array, "B L"],
        *,
        mask: Bool[Array, "B L"],
        key: Key[Array, ""] | None = None,
    ) -> Float32[Array, " B"]:
        """Score texts whose beginnings `state` holds, from their right-padded remaining tokens.

        The scores are those of the whole texts, up to rounding; gradients flow through the state.
        A row needs a real token: one without scores some finite number. A `key` turns dropout on.

        Raises:
            InputError: the family has no such states.
            ValueError: `state` is of another model or of other rows.
        """
        state_arrays(self.config.family, self.config.backbone)
        backbone_key, head_key = split_key(key, 2)
        hidden = self.encode(input_ids, mask=mask, initial_state=state, key=backbone_key)
        return self.head(hidden, mask=mask, key=head_key)

    def encode(self, input_ids: Int[Array, "B L"], **arguments: Any) -> Any:
        """What the head is given; see Backbone.encode for the arguments and the result."""
        return self.backbone.encode(input_ids, **arguments, **self.encode_options)

    @property
    def encode_options(self) -> Mapping[str, Any]:
        """What the head asks of `Backbone.encode`."""
        return get_family(self.config.family).encode_options.get(self.config.head, {})


def parameters(module: RerankerModule) -> dict[str, jax.Array]:
    """Every parameter by its path, e.g. "head.score.kernel"; stacked layers are one array."""
    return {
        _joined(path): variable.get_value()
        for path, variable in nnx.to_flat_state(nnx.state(module, nnx.Param))
    }


def parameter_shapes(config: RerankerConfig) -> dict[str, jax.ShapeDtypeStruct]:
    """Path, shape and dtype of every parameter of that architecture; allocates nothing."""
    _, state = _abstract(config)
    return {_joined(path): variable.get_value() for path, variable in nnx.to_flat_state(state)}


def build_module(
    config: RerankerConfig,
    parameters: Mapping[str, ArrayLike],
    *,
    dtype: DTypeLike = jnp.float32,
    remat: Remat | None = None,
    unroll: int = 1,
    implementations: Implementations = AUTOMATIC,
    release: bool = False,
) -> RerankerModule:
    """A module with those parameters, all of them and no others.

    With `release` the dict `parameters` is emptied on the way, so that memory holds no more than
    one of them twice.

    Raises:
        InputError: listing every missing, unused and wrongly shaped parameter, or naming an
            operation to choose an implementation of that the model does not have.
    """
    graphdef, state = _abstract(config, dtype=dtype, remat=remat, unroll=unroll)
    variables = {_joined(path): variable for path, variable in nnx.to_flat_state(state)}
    wanted = {path: variable.get_value().shape for path, variable in variables.items()}
    given = {path: jnp.shape(value) for path, value in parameters.items()}
    faults = [f"{path} missing" for path in sorted(wanted.keys() - given.keys())]
    faults += [f"{path} unused" for path in sorted(given.keys() - wanted.keys())]
    faults += [
        f"{path} has shape {given[path]}, needs {wanted[path]}"
        for path in sorted(wanted.keys() & given.keys())
        if given[path] != wanted[path]
    ]
    if faults:
        raise InputError(f"parameters of a {config.family} reranker: {'; '.join(faults)}")
    for path, variable in variables.items():
        variable.set_value(jnp.asarray(parameters[path], jnp.float32))
        if release:
            assert isinstance(parameters, dict)
            variable.get_value().block_until_ready()  # JAX copies in the background
            del parameters[path]
    module: RerankerModule = nnx.merge(graphdef, state)
    choose_implementations(module, implementations)
    return module


def init_module(
    config: RerankerConfig,
    *,
    seed: int,
    dtype: DTypeLike = jnp.float32,
    remat: Remat | None = None,
    unroll: int = 1,
    implementations: Implementations = AUTOMATIC,
) -> RerankerModule:
    """A module at a random start; the same seed gives the same parameters.

    Raises:
        InputError: an implementation is chosen of an operation that the model does not have.
    """
    rngs = nnx.Rngs(params=seed)
    module = RerankerModule(config, dtype=dtype, rngs=rngs, remat=remat, unroll=unroll)
    choose_implementations(module, implementations)
    return module


def _abstract(config: RerankerConfig, **options: Any) -> tuple[Any, Any]:
    """Graph definition and state of a module, with shapes in place of arrays."""
    return jax.eval_shape(
        lambda: nnx.split(RerankerModule(config, rngs=nnx.Rngs(params=0), **options))
    )


def _joined(path: tuple[Any, ...]) -> str:
    return ".".join(str(part) for part in path)
