"""Prompt templates as data: how a query and a document become one sequence of tokens.

A template is a tuple of segments. A segment is either a special token by its role (`[CLS]`,
`[SEP]`, `[EOS]`; the tokenizer says which token plays it), or literal text that ends in one field
(`"document: {document}"`), or literal text alone. Each segment is tokenised by itself and the ids
are joined, so that a document's ids never depend on its query, and cutting a document happens at
the end of its own ids. Special tokens and literal text are never cut.

The template `pair` has no segments: it is the tokenizer's own encoding of a pair, cut
longest_first, with its token types. Published cross-encoders were trained so.
"""

import difflib
from dataclasses import dataclass
from typing import Literal

from jaxrank.errors import InputError

Field = Literal["query", "document"]
CLS, SEP, EOS = "[CLS]", "[SEP]", "[EOS]"
SPECIAL_TOKENS = (CLS, SEP, EOS)


@dataclass(frozen=True)
class TextConfig:
    """How pairs of texts become tokens; stored with a model, so that it is served as trained."""

    template: str = "pair"
    """Name of the prompt template: pair, paper, authors-code, ssm-rerankers, or one wording."""
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
_TEMPLATES = (
    Template("pair", query_length=None),
    # P1 as printed. [EOS] is the tokenizer's end-of-sequence token, or [SEP] where it has none.
    Template("paper-encoder", (CLS, "{query}", SEP, "{document}", EOS)),
    Template("paper-decoder", ("document: {document}", "\n\nquery: {query}", EOS)),
    # P1's code: one sequence, cut at its end, with two markers added to the vocabulary.
    Template(
        "authors-code-encoder",
        (CLS, "[query]{query}", SEP, "[passage]{document}", SEP),
        query_length=None,
        document_budget="rest",
        added_tokens=("[query]", "[passage]"),
    ),
    Template("authors-code-decoder", ("Document: {document}", "\n\nQuery: {query}", EOS)),
    # What P1's code gave decoders at evaluation (max_length 768), after training on the one above.
    Template(
        "authors-code-decoder-evaluation", ("Document: {document}", "\n\n[query]{query}", EOS)
    ),
    # P2 as printed, spaces included.
    Template("ssm-rerankers-encoder", (CLS, " ; query: {query}", " ; document: {document}")),
    Template("ssm-rerankers-decoder", ("document: {document}", " ; query: {query}", " ; ", EOS)),
)
TEMPLATES: dict[str, Template] = {template.name: template for template in _TEMPLATES}

# Names that stand for two wordings: for tokenizers with a [CLS] token (encoders), and without.
WORDINGS: dict[str, tuple[str, str]] = {
    "paper": ("paper-encoder", "paper-decoder"),
    "authors-code": ("authors-code-encoder", "authors-code-decoder"),
    "ssm-rerankers": ("ssm-rerankers-encoder", "ssm-rerankers-decoder"),
}


def get_template(name: str, *, has_cls: bool) -> Template:
    """The template called `name`; `has_cls` chooses between an encoder's and a decoder's wording.

    Raises:
        InputError: an unknown name; the message gives the nearest one.
    """
    if name in WORDINGS:
        encoder, decoder = WORDINGS[name]
        name = encoder if has_cls else decoder
    if name not in TEMPLATES:
        known = [*WORDINGS, *TEMPLATES]
        nearest = difflib.get_close_matches(name, known, n=1, cutoff=0.0)[0]
        raise InputError(
            f"template: got {name!r}; did you mean {nearest!r}? There are {', '.join(known)}"
        )
    return TEMPLATES[name]
