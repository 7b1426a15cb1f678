"""Tokens that a template needs in the vocabulary and that a published tokenizer does not have."""

import copy
from collections.abc import Sequence

from transformers import PreTrainedTokenizerFast

from jaxrank.errors import InputError
from jaxrank.text.templates import TextConfig, get_template


def missing_tokens(tokenizer: PreTrainedTokenizerFast, text: TextConfig) -> tuple[str, ...]:
    """Those of the template's added tokens that the tokenizer lacks."""
    vocabulary = tokenizer.get_vocab()
    return tuple(
        token for token in get_template(text.template).added_tokens if token not in vocabulary
    )


def add_tokens(
    tokenizer: PreTrainedTokenizerFast, tokens: Sequence[str]
) -> PreTrainedTokenizerFast:
    """A copy of the tokenizer that knows `tokens`, by the ids behind all that it has.

    They are found in texts as well, also in those of users: `[query]` in a document becomes the
    marker, as in P1's code.

    Raises:
        InputError: the tokenizer's ids have gaps, into which it would put them.
    """
    end = vocabulary_size(tokenizer)
    tokenizer = copy.deepcopy(tokenizer)
    tokenizer.add_tokens(list(tokens))
    ids = [tokenizer.convert_tokens_to_ids(token) for token in tokens]
    if ids != list(range(end, end + len(tokens))):
        raise InputError(
            f"tokenizer: cannot take the tokens {', '.join(tokens)} behind its {end} ids, since "
            "these have gaps; use the template 'paper'"
        )
    return tokenizer


def vocabulary_size(tokenizer: PreTrainedTokenizerFast) -> int:
    """Every id is below it; an embedding needs at least so many rows."""
    return max(tokenizer.get_vocab().values()) + 1
