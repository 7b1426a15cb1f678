"""Pairs of a query and a document as padded rows of token ids, without any tokenizer.

A wording, as `prepare` writes it down, is a list of parts: fixed ids, or the place of a field. The
result is what `jaxrank.text.tokenize.PairTokenizer` makes of the texts, token for token.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from jaxrank.text.truncation import Kept, cut_longest_first
from scripts.gpu_study.archive import Texts


class Pairs(NamedTuple):
    """Rows of token ids, padded on the right."""

    input_ids: np.ndarray
    """(pairs, max_length)"""
    token_type_ids: np.ndarray
    """(pairs, max_length)"""
    lengths: np.ndarray
    """(pairs,) real tokens of each."""

    def batch(self, rows: np.ndarray, length: int) -> dict[str, np.ndarray]:
        """Some of the rows, cut to `length`, as a model takes them.

        Args:
            rows: of any shape, which becomes the batch's.
        """
        lengths = self.lengths[rows]
        return {
            "input_ids": self.input_ids[rows, :length].astype(np.int32),
            "token_type_ids": self.token_type_ids[rows, :length].astype(np.int32),
            "mask": np.arange(length) < lengths[..., None],
        }


def join_pairs(
    wording: Mapping[str, Any],
    queries: Texts,
    documents: Texts,
    query_rows: np.ndarray,
    document_rows: np.ndarray,
) -> Pairs:
    """Cut and join queries and documents, pair by pair.

    Args:
        wording: parts, max_length, room, budgets and how to cut, from study.json.
        query_rows, document_rows: (pairs,) rows of `queries` and `documents`.
    """
    kept = _cut(wording, queries.lengths()[query_rows], documents.lengths()[document_rows])
    max_length, pad = wording["max_length"], wording["pad_token_id"]
    input_ids = np.full((len(query_rows), max_length), pad, queries.ids.dtype)
    token_type_ids = np.zeros((len(query_rows), max_length), np.uint8)
    fixed = [np.array(part.get("ids", []), input_ids.dtype) for part in wording["parts"]]
    lengths = kept.query + kept.document + sum(map(len, fixed))
    fields = {"query": (queries, query_rows, kept.query)}
    fields["document"] = (documents, document_rows, kept.document)
    ends = np.zeros(len(query_rows), np.int64)
    for part, ids in zip(wording["parts"], fixed, strict=True):
        if "field" not in part:
            where = ends[:, None] + np.arange(len(ids))
            row = np.arange(len(ends))[:, None]
            input_ids[row, where] = ids
            token_type_ids[row, where] = np.array(part["token_types"], np.uint8)
            ends += len(ids)
            continue
        texts, rows, sizes = fields[part["field"]]
        for pair, (row, start, size) in enumerate(zip(rows, ends, sizes, strict=True)):
            input_ids[pair, start : start + size] = texts[row][:size]
            if part["token_type"]:
                token_type_ids[pair, start : start + size] = part["token_type"]
        ends = ends + sizes
    return Pairs(input_ids, token_type_ids, lengths)


def _cut(wording: Mapping[str, Any], query_lengths: np.ndarray, lengths: np.ndarray) -> Kept:
    """How many ids each pair keeps of its query and of its document."""
    room = wording["room"]
    if wording["cut"] == "longest_first":
        return cut_longest_first(query_lengths, lengths, room)
    query = np.minimum(query_lengths, wording["query_budget"])
    return Kept(query, np.minimum(lengths, wording["document_budget"]))
