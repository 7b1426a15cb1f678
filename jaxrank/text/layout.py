"""A template as one tokenizer expresses it: fixed ids, and slots for the ids of the two fields."""

from typing import NamedTuple

import numpy as np
from tokenizers import Tokenizer
from transformers import PreTrainedTokenizerFast

from jaxrank.errors import InputError
from jaxrank.text.templates import (
    CLS,
    EOS,
    PAD,
    SEP,
    SPECIAL_TOKENS,
    START,
    Field,
    Template,
    field_of,
    literal_of,
)


class Fixed(NamedTuple):
    """Ids that every sequence has, with their token types."""

    ids: np.ndarray
    token_type_ids: np.ndarray


class Slot(NamedTuple):
    """Where a field's ids go: the literal text tokenised with it, and its token type."""

    field: Field
    literal: str
    token_type: int


def make_layout(
    template: Template, tokenizer: Tokenizer, settings: PreTrainedTokenizerFast
) -> list[Fixed | Slot]:
    """The parts of a sequence, in order.

    Args:
        tokenizer: turns text into ids.
        settings: knows which tokens play [CLS], [SEP] and [EOS], and whether the model that it
            belongs to is given token types; elsewhere they are 0.

    Raises:
        InputError: the tokenizer lacks a token that the template needs.
    """
    if template.is_pair:
        has_types = "token_type_ids" in settings.model_input_names
        return _pair_layout(tokenizer, has_types=has_types)
    missing = [token for token in template.added_tokens if tokenizer.token_to_id(token) is None]
    if missing:
        raise InputError(
            f"template {template.name!r}: the tokenizer lacks the tokens {', '.join(missing)}; add "
            "them to its vocabulary (and rows to the embedding), or use the template 'paper'"
        )
    special = _special_ids(settings)
    if START in template.segments:
        special[START] = _start_ids(tokenizer)
    layout: list[Fixed | Slot] = []
    for segment in template.segments:
        if field := field_of(segment):
            layout.append(Slot(field, literal_of(segment), 0))
            continue
        if segment not in SPECIAL_TOKENS:
            ids = tokenizer.encode(segment, add_special_tokens=False).ids
        elif segment in special:
            ids = special[segment]
        else:
            raise InputError(
                f"template {template.name!r}: needs a {segment} token and the tokenizer has none"
            )
        layout.append(Fixed(np.array(ids, np.int32), np.zeros(len(ids), np.int32)))
    return layout


def _special_ids(settings: PreTrainedTokenizerFast) -> dict[str, list[int]]:
    """Role -> ids of the special tokens there are; [SEP] also ends a sequence, as in BERT."""
    end = settings.eos_token_id if settings.eos_token_id is not None else settings.sep_token_id
    roles = {
        CLS: settings.cls_token_id,
        SEP: settings.sep_token_id,
        EOS: end,
        PAD: settings.pad_token_id,
    }
    return {role: [token_id] for role, token_id in roles.items() if token_id is not None}


def _start_ids(tokenizer: Tokenizer) -> list[int]:
    """What the tokenizer itself puts before a text, e.g. OPT's </s>."""
    example = tokenizer.encode("a")
    return example.ids[: example.sequence_ids.index(0)]


def _pair_layout(tokenizer: Tokenizer, *, has_types: bool) -> list[Fixed | Slot]:
    """The tokenizer's own encoding of a pair, read off an example."""
    example = tokenizer.encode("a", "a")
    sequences = example.sequence_ids
    if [part for part in dict.fromkeys(sequences) if part is not None] != [0, 1]:
        raise InputError("template 'pair': this tokenizer does not put the query first")
    first, second = sequences.index(0), sequences.index(1)
    ends = [len(sequences) - sequences[::-1].index(part) for part in (0, 1)]
    types = np.array(example.type_ids, np.int32) * has_types

    def fixed(start: int, end: int) -> Fixed:
        return Fixed(np.array(example.ids[start:end], np.int32), types[start:end])

    return [
        fixed(0, first),
        Slot("query", "", int(types[first])),
        fixed(ends[0], second),
        Slot("document", "", int(types[second])),
        fixed(ends[1], len(sequences)),
    ]
