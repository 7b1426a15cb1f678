"""Prompt templates as data: how a query and a document become one sequence of tokens.

A template is a tuple of segments. A segment is either a special token by its role (`[CLS]`,
`[SEP]`, `[EOS]`, ...; the tokenizer says which token plays it), or literal text that ends in one
field (`"document: {document}"`), or literal text alone. Each segment is tokenised by itself and the
ids are joined, so that a document's ids never depend on its query, and cutting a document happens
at the end of its own ids. Special tokens and literal text are never cut.

The template `pair` has no segments: it is the tokenizer's own encoding of a pair, cut
longest_first, with its token types. Published cross-encoders were trained so.

A paper words its prompt differently for encoders, decoders and encoder-decoders. The name of such a
group (`paper`) becomes the one wording (`paper-decoder`) when the model is known, and only that is
stored.
"""

import difflib
from dataclasses import dataclass
from typing import Literal

from jaxrank.errors import InputError

Field = Literal["query", "document"]
Wording = Literal["encoder", "decoder", "encoder-decoder"]
CLS, SEP, EOS, PAD = "[CLS]", "[SEP]", "[EOS]", "[PAD]"
START = "[START]"  # what the tokenizer itself puts before a text, which may be nothing
SPECIAL_TOKENS = (CLS, SEP, EOS, PAD, START)


@dataclass(frozen=True)
class TextConfig:
    """How pairs of texts become tokens; stored with a model, so that it is served as trained."""

    template: str = "pair"
    """Name of one template (not of a group of wordings, which only a model can choose from)."""
    max_length: int = 512
    """Longest sequence in tokens; longer pairs are cut and counted. The papers used 512."""
    query_length: int | None = None
    """Tokens kept for all that is not the document's segment (query, special tokens); the
    document's segment gets max_length - query_length. Default: the template's own. Not for
    `pair`, which cuts the longer of the two texts first."""

    def __post_init__(self) -> None:
        if self.max_length < 1:
            raise InputError(f"max_length: got {self.max_length}; at least 1 is needed")
        if self.query_length is None:
            return
        if self.template == "pair":
            raise InputError(
                f"query_length: got {self.query_length} with the template `pair`, which cuts "
                "longest_first; leave it out or choose a template of segments"
            )
        if not 0 < self.query_length < self.max_length:
            raise InputError(
                f"query_length: got {self.query_length}; it must be above 0 and below "
                f"max_length {self.max_length}"
            )


@dataclass(frozen=True)
class Template:
    """One wording of a prompt.

    Attributes:
        segments: special tokens by role and texts, in order; empty for the tokenizer's own pair.
        query_length: default budget in tokens for all that is not the document's segment.
            None: the query may take whatever the document's literal text leaves.
        document_budget: "fixed" gives the document's segment max_length - query_length tokens,
            whatever the query; "rest" gives it all that the query leaves.
        added_tokens: tokens that the tokenizer's vocabulary must hold as added ones.
    """

    name: str
    segments: tuple[str, ...] = ()
    query_length: int | None = 50
    document_budget: Literal["fixed", "rest"] = "fixed"
    added_tokens: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        fields = [field for field in map(field_of, self.segments) if field]
        if self.segments and sorted(fields) != ["document", "query"]:
            raise ValueError(f"template {self.name}: needs each field once, has {fields}")

    @property
    def is_pair(self) -> bool:
        """Whether the tokenizer's own pair encoding is meant."""
        return not self.segments


def field_of(segment: str) -> Field | None:
    """The field that a segment ends in, or None for special tokens and literal text."""
    if segment.endswith("{query}"):
        return "query"
    return "document" if segment.endswith("{document}") else None


def literal_of(segment: str) -> str:
    """The text of a segment without its field."""
    field = field_of(segment)
    return segment.removesuffix(f"{{{field}}}") if field else segment


# P1 is RankMamba (arXiv 2403.18276), P2 is State Space Models are Strong Text Rerankers
# (arXiv 2412.14354). Budgets of 50 tokens for the query's side are those of P1's decoder code;
# neither paper prints one. Token types are 0 throughout, as in P1's code.
_MARKERS = ("[query]", "[passage]")
_TEMPLATES = (
    Template("pair", query_length=None),
    # P1 as printed. [EOS] is the tokenizer's end-of-sequence token, or [SEP] where it has none.
    Template("paper-encoder", (CLS, "{query}", SEP, "{document}", EOS)),
    Template("paper-decoder", ("document: {document}", "\n\nquery: {query}", EOS)),
    # T5 has neither [CLS] nor [SEP].
    Template("paper-encoder-decoder", ("{query}", EOS, "{document}", EOS)),
    # P1's code: one sequence, cut at its end, with two markers added to the vocabulary.
    Template(
        "authors-code-encoder",
        (CLS, "[query]{query}", SEP, "[passage]{document}", SEP),
        query_length=None,
        document_budget="rest",
        added_tokens=_MARKERS,
    ),
    Template("authors-code-decoder", (START, "Document: {document}", "\n\nQuery: {query}", EOS)),
    # A pad token, which the encoder reads as any other, stands in front.
    Template(
        "authors-code-encoder-decoder",
        (PAD, "[query]{query}", EOS, "[passage]{document}", EOS),
        query_length=None,
        document_budget="rest",
        added_tokens=_MARKERS,
    ),
    # What P1's code gave decoders at evaluation (max_length 768), after training on the one above.
    Template(
        "authors-code-decoder-evaluation",
        (START, "Document: {document}", "\n\n[query]{query}", EOS),
    ),
    # And T5: without its separator.
    Template(
        "authors-code-encoder-decoder-evaluation",
        (PAD, "[query]{query}", "[passage]{document}", EOS),
        query_length=None,
        document_budget="rest",
        added_tokens=_MARKERS,
    ),
    # P2 as printed, spaces included.
    Template("ssm-rerankers-encoder", (CLS, " ; query: {query}", " ; document: {document}")),
    Template("ssm-rerankers-decoder", ("document: {document}", " ; query: {query}", " ; ", EOS)),
)
TEMPLATES: dict[str, Template] = {template.name: template for template in _TEMPLATES}

WORDINGS: dict[str, dict[Wording, str]] = {
    "paper": {
        "encoder": "paper-encoder",
        "decoder": "paper-decoder",
        "encoder-decoder": "paper-encoder-decoder",
    },
    "authors-code": {
        "encoder": "authors-code-encoder",
        "decoder": "authors-code-decoder",
        "encoder-decoder": "authors-code-encoder-decoder",
    },
    "authors-code-evaluation": {
        "encoder": "authors-code-encoder",
        "decoder": "authors-code-decoder-evaluation",
        "encoder-decoder": "authors-code-encoder-decoder-evaluation",
    },
    # P2 has no encoder-decoder that is read as one: its BART is worded as an encoder.
    "ssm-rerankers": {
        "encoder": "ssm-rerankers-encoder",
        "decoder": "ssm-rerankers-decoder",
    },
}
"""Names that stand for several templates: one for each kind of model."""


def wordings_of(template: str) -> set[Wording]:
    """The kinds of models that a template is worded for; none for `pair`, which suits all."""
    return {
        wording
        for group in WORDINGS.values()
        for wording, name in group.items()
        if name == template
    }


def resolve_template(name: str, *, wording: Wording) -> str:
    """The name of the one template that `name` means for a model that reads `wording`.

    Raises:
        InputError: an unknown name, or a group without such a wording.
    """
    if name not in WORDINGS:
        return get_template(name).name
    if wording not in WORDINGS[name]:
        raise InputError(
            f"template: {name!r} has no wording for an {wording} model; take 'paper', 'pair', or "
            f"one of {', '.join(WORDINGS[name].values())}"
        )
    return WORDINGS[name][wording]


def get_template(name: str) -> Template:
    """The template of exactly that name.

    Raises:
        InputError: an unknown name, with the nearest one, or the name of a group of wordings.
    """
    if name in TEMPLATES:
        return TEMPLATES[name]
    if name in WORDINGS:
        raise InputError(
            f"template: {name!r} is worded by the kind of model; without a model choose one of "
            f"{', '.join(WORDINGS[name].values())}"
        )
    known = [*WORDINGS, *TEMPLATES]
    nearest = difflib.get_close_matches(name, known, n=1, cutoff=0.0)[0]
    raise InputError(
        f"template: got {name!r}; did you mean {nearest!r}? There are {', '.join(known)}"
    )
