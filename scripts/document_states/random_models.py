"""Models at a random start, and texts of exactly so many tokens: what speed and size depend on."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike

from jaxrank.models.families import FAMILIES, state_arrays
from jaxrank.models.implementations import Implementations
from jaxrank.models.module import AUTOMATIC, RerankerConfig, RerankerModule, init_module
from jaxrank.models.states import StateArray
from jaxrank.ranking.document_states.identity import StateIdentity
from jaxrank.ranking.document_states.model_identity import identity_of
from jaxrank.text.document_first import DocumentFirst
from jaxrank.text.templates import TextConfig
from jaxrank.text.tokenize import PairTokenizer, TokenizedPair, load_tokenizer

TOKENIZER = Path(__file__).resolve().parents[2] / "tests" / "data" / "tokenizers" / "gpt-neox-20b"
TEMPLATE = "paper-decoder"
QUERY_LENGTH = 50
"""What that template keeps for the query's side."""
WORDS = ("the", "of", "and", "to", "in", "for", "is", "on", "that", "by", "with", "or", "as", "are")
"""One token each behind a blank."""
TINY = {
    "bert": "bert-tiny",
    "gpt_neox": "gpt-neox-tiny",
    "mamba": "mamba-tiny",
    "mamba2": "mamba2-tiny",
    "opt": "opt-tiny",
}


@dataclass(frozen=True)
class RandomModel:
    """A preset at a random start, or its family's tiny one in its place."""

    preset: str
    longest: int
    """Tokens of the longest document."""
    is_toy: bool = False
    dtype: DTypeLike = jnp.float32
    """What the network computes in."""
    implementations: Implementations = AUTOMATIC

    @cached_property
    def config(self) -> RerankerConfig:
        """The architecture."""
        family, backbone = find_preset(self.preset)
        return RerankerConfig(
            family, FAMILIES[family].presets[TINY[family]] if self.is_toy else backbone
        )

    @property
    def positions(self) -> int | None:
        """Longest pair in tokens; None where there is no limit."""
        positions: int | None = self.config.backbone.max_length
        return positions

    @cached_property
    def module(self) -> RerankerModule:
        """The network."""
        return init_module(
            self.config, seed=0, dtype=self.dtype, implementations=self.implementations
        )

    @cached_property
    def tokenizer(self) -> DocumentFirst:
        """GPT-NeoX's, with room for the longest document; WORDS are in every vocabulary."""
        return DocumentFirst(PairTokenizer(load_tokenizer(TOKENIZER), self._text))

    @property
    def _text(self) -> TextConfig:
        return TextConfig(TEMPLATE, max_length=self.longest + QUERY_LENGTH)

    @cached_property
    def identity(self) -> StateIdentity:
        """What its states are made for."""
        return identity_of(self.module, self.tokenizer)

    def save(self, folder: Path) -> None:
        """Write it as a model folder."""
        from jaxrank.reranker import Reranker  # late: a GPU's image may lack what this needs

        tokenizer = load_tokenizer(TOKENIZER)
        Reranker(self.config, self.module, tokenizer, self._text).save_pretrained(folder)

    def documents(self, count: int, length: int, seed: int = 0) -> list[str]:
        """Texts whose document's side has exactly so many tokens."""
        random = np.random.default_rng([seed, length])
        return [_text(self.tokenizer.documents, length, random) for _ in range(count)]

    def query(self, length: int) -> str:
        """A text whose query's side has exactly so many tokens."""
        return _text(self.tokenizer.queries, length, np.random.default_rng(0))

    def pairs(self, count: int, length: int) -> list[TokenizedPair]:
        """Random ids of pairs of exactly so many tokens."""
        random = np.random.default_rng(length)
        rows = random.integers(1000, 30000, (count, length), np.int32)
        return [TokenizedPair(row, np.zeros_like(row)) for row in rows]


def find_preset(preset: str) -> tuple[str, Any]:
    """Family and backbone's configuration of a preset."""
    for family in FAMILIES.values():
        if preset in family.presets:
            return family.name, family.presets[preset]
    raise KeyError(preset)


def specs_of(preset: str) -> tuple[StateArray, ...]:
    """The arrays of a text's state; allocates nothing."""
    return state_arrays(*find_preset(preset))


def _text(tokenise: Any, length: int, random: np.random.Generator) -> str:
    around = len(tokenise([WORDS[0]])[0]) - 1
    if length <= around:
        raise ValueError(f"length: got {length}; the template alone takes {around}")
    text = " ".join(random.choice(WORDS, length - around))
    found = len(tokenise([text])[0])
    assert found == length, f"{found} tokens for {length}"
    return text
