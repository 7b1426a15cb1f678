"""Pairs of texts as token ids, and their batches: rows of one length."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Int32


@dataclass(frozen=True, slots=True)
class TokenizedPair:
    """One query and one document as a sequence of tokens, without padding."""

    input_ids: Int32[np.ndarray, " L"]
    token_type_ids: Int32[np.ndarray, " L"]


def pad_pairs(
    pairs: Sequence[TokenizedPair], *, length: int, pad_token_id: int, rows: int | None = None
) -> dict[str, Int32[np.ndarray, "B L"] | Bool[np.ndarray, "B L"]]:
    """Stack pairs, padded on the right to `length` tokens.

    Args:
        rows: rows of the batch, at least the number of pairs. Rows beyond the pairs hold one pad
            token with mask True, since attention over nothing at all has no value.

    Returns:
        input_ids, token_type_ids (int32) and mask (bool, True for real tokens).
    """
    rows = len(pairs) if rows is None else rows
    if rows < len(pairs):
        raise ValueError(f"{len(pairs)} pairs do not fit into {rows} rows")
    input_ids = np.full((rows, length), pad_token_id, np.int32)
    token_type_ids = np.zeros((rows, length), np.int32)
    sizes = np.ones(rows, np.int64)
    for row, pair in enumerate(pairs):
        size = len(pair.input_ids)
        if size > length:
            raise ValueError(f"a pair of {size} tokens does not fit into {length}")
        input_ids[row, :size] = pair.input_ids
        token_type_ids[row, :size] = pair.token_type_ids
        sizes[row] = size
    mask = np.arange(length) < sizes[:, None]
    return {"input_ids": input_ids, "mask": mask, "token_type_ids": token_type_ids}
