"""A document's state as it is kept, and the states of candidates side by side."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from jaxrank.errors import InputError
from jaxrank.ranking.document_states.formats import StoredArray


class Record(NamedTuple):
    """One document's state."""

    document_id: str
    length: int
    """Tokens that were read."""
    arrays: dict[str, np.ndarray]
    """As they are kept: name -> (layers, ...), of arrays per token (layers, tokens, ...)."""
    text_hash: int = 0
    """`jaxrank.data.hashing.hash_text` of the text that was read; 0 where it is not known."""

    @property
    def nbytes(self) -> int:
        """Bytes of its arrays."""
        return sum(array.nbytes for array in self.arrays.values())


class Gathered(NamedTuple):
    """The states of candidates, to be moved to the device at once; a pytree."""

    arrays: dict[str, np.ndarray]
    """As they are kept: name -> (layers, rows, ...), of arrays per token (layers, rows, tokens,
    ...); zeros behind a document's tokens and in rows without a document."""
    lengths: np.ndarray
    """Tokens that were read of each, int32 (rows,)."""


def check_record(
    record: Record, stored: Sequence[StoredArray], document_budget: int, computed_in: str
) -> None:
    """Refuse a record that a store of these arrays cannot hold.

    Args:
        computed_in: what the model computed in, for the message about a number that is not finite.

    Raises:
        ValueError: it has other arrays, or arrays of other shapes or types.
        InputError: it is longer than the budget, has an id that is not UTF-8, or a number that is
            not finite.
    """
    name = record.document_id
    try:
        name.encode()
    except UnicodeEncodeError:
        raise not_unicode(name) from None
    if not 0 <= record.length <= document_budget:
        raise InputError(
            f"document {name!r}: {record.length} tokens were read; at most {document_budget} are "
            "what these states are made for"
        )
    wanted = {array.name for array in stored}
    if record.arrays.keys() != wanted:
        raise ValueError(
            f"record {name!r}: arrays {sorted(record.arrays)}; {sorted(wanted)} are needed"
        )
    for array in stored:
        found, shape = record.arrays[array.name], array.shape_at(record.length)
        if (found.shape, found.dtype) != (shape, array.dtype):
            raise ValueError(
                f"record {name!r}: {array.name} is {found.dtype} {found.shape}; {array.dtype} "
                f"{shape} is needed"
            )
    bad = name_of_not_finite(record)
    if bad is not None:
        raise InputError(
            f"document {name!r}: {bad} of its state has numbers that are not finite, computed in "
            f"{computed_in} and kept in {record.arrays[bad].dtype}; check the weights"
            + ("" if computed_in == "float32" else ", or compute in float32")
        )


def not_unicode(document_id: str) -> InputError:
    """An id that no file can hold: half of a surrogate pair, as JSON may have it."""
    return InputError(f"document {document_id!r}: its id is no Unicode text, which is needed")


def name_of_not_finite(record: Record) -> str | None:
    """The first array with a NaN or an infinity in it."""
    return next((name for name, array in record.arrays.items() if not is_finite(array)), None)


def is_finite(array: np.ndarray) -> bool:
    """Whether all numbers are; of integers they always are.

    Bits are compared: what is not finite has larger ones than any number of its sign, so that two
    largest values tell, which takes a seventh of the time of `np.isfinite` for bfloat16.
    """
    if array.dtype.kind == "i" or not array.size:
        return True
    size = array.dtype.itemsize
    infinity = 0x7F800000 if size == 4 else 0x7F80
    negative = 1 << (8 * size - 1)
    bits = array.reshape(-1)
    return bool(
        bits.view(f"i{size}").max() < infinity and bits.view(f"u{size}").max() < infinity | negative
    )
