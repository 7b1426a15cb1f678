"""Tiny models with document states, made once, and what they compile kept for all tests."""

from functools import cache

import numpy as np
from flax import nnx

from jaxrank.models.backbone import BackboneConfig
from jaxrank.models.families import get_family
from jaxrank.models.mamba import MambaConfig
from jaxrank.models.mamba2 import Mamba2Config
from jaxrank.models.module import RerankerConfig, RerankerModule, build_module, init_module
from jaxrank.models.module import parameters as parameters_of
from jaxrank.models.opt import OptConfig
from jaxrank.ranking.document_states.encoding import DocumentEncoder
from jaxrank.ranking.document_states.formats import StateDType, to_stored
from jaxrank.ranking.document_states.memory import MemoryStates
from jaxrank.text.document_first import DocumentFirst
from jaxrank.text.templates import TextConfig
from jaxrank.text.tokenize import PairTokenizer
from tests.tiny_states import make_tokenizer

VOCABULARY = 32
BACKBONES: dict[str, BackboneConfig] = {
    "mamba": MambaConfig(vocab_size=VOCABULARY, hidden_size=32, num_layers=2),
    "mamba2": Mamba2Config(
        vocab_size=VOCABULARY, hidden_size=32, num_layers=2, state_size=16, head_size=16
    ),
    "opt": OptConfig(
        vocab_size=VOCABULARY, hidden_size=32, num_layers=2, num_heads=2, intermediate_size=64,
        max_position_embeddings=74, embedding_size=32,
    ),
}  # fmt: skip
TEXT = TextConfig(template="paper-decoder", max_length=74)  # 24 tokens of a document
QUERY = "what is gout"
DOCUMENTS = {
    "long": "asthma fever cough " * 20,
    "empty": "",
    "short": "acne is painful",
    "middle": "heart pain and stroke " * 4,
    "other": "cancer rash " * 3,
    "x": "gout",
}


@cache
def make_module(family: str) -> RerankerModule:
    """A module whose head is so large that scores differ by a thousand times their rounding."""
    config = RerankerConfig(family, BACKBONES[family])
    found = {name: np.asarray(a) for name, a in parameters_of(init_module(config, seed=0)).items()}
    found["head.score.kernel"] = found["head.score.kernel"] * 50
    return build_module(config, found)


@cache
def make_pairs() -> PairTokenizer:
    return PairTokenizer(make_tokenizer(), TEXT)


@cache
def make_sides() -> DocumentFirst:
    return DocumentFirst(make_pairs())


@cache
def make_encoder(family: str, batch_size: int = 4) -> DocumentEncoder:
    return DocumentEncoder(make_module(family), make_sides(), batch_size=batch_size)


@cache
def make_states(family: str, dtype: StateDType = "float32") -> MemoryStates:
    encoder = make_encoder(family)
    states = MemoryStates(encoder.identity, dtype, encoder.computed_in)
    for record in encoder.encode(list(DOCUMENTS.items())):
        states.add([record._replace(arrays=to_stored(record.arrays, encoder.specs, dtype))])
    return states


def make_without_weights(family: str) -> RerankerModule:
    """A tiny module of any family, for what looks at no weights."""
    config = RerankerConfig(family, get_family(family).presets[f"{family}-tiny"])
    module: RerankerModule = nnx.eval_shape(lambda: RerankerModule(config, rngs=nnx.Rngs(params=0)))
    return module
