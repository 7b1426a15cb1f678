"""From drawn groups to the arrays of a batch, padded or packed, whole or a process's share.

What a batch is, `training.step.make_train_step` says.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Int

from jaxrank.data.groups import Group, Targets
from jaxrank.data.packing import (
    Places,
    balance,
    pack,
    packing_arrays,
    round_up_rows,
    texts_per_row,
)
from jaxrank.data.samples import Sample, candidate_ids
from jaxrank.data.tokens.table import GroupTokens, tokenise_texts
from jaxrank.text.buckets import bucket_for
from jaxrank.text.tokenize import PairTokenizer
from jaxrank.text.truncation import Kept, count_cuts

Batch = dict[str, np.ndarray]


@dataclass(frozen=True)
class BatchShape:
    """How the groups of a batch are laid out.

    The groups of a batch are cut into parts, and each part over the processes; all processes
    compute the same shapes from the lengths of all pairs, without asking one another. In padded
    batches groups keep their order; in packed ones they are dealt out so that all parts and
    processes get about as many tokens, since the one with the most says the number of rows.
    """

    candidates: int
    """C, of a group: its positive and its negatives."""
    buckets: Sequence[int]
    """Lengths that padded rows may have, ascending."""
    targets: Targets | None = None
    packing: bool = False
    accumulation: int = 1
    shard: tuple[int, int] = (0, 1)
    """Which process of how many this is."""
    rows_multiple: int = 1
    """Packed rows are a multiple of it."""

    def own(self, array: np.ndarray) -> np.ndarray:
        """The groups of this process: (Q, ...) -> (parts, groups, ...)."""
        index, count = self.shard
        return array.reshape(self.accumulation, count, -1, *array.shape[1:])[:, index]


@dataclass(frozen=True)
class BatchMaker:
    """Called with the samples of a whole batch, makes the arrays of this process's share.

    Args:
        tokens: the ids of all texts. None: each batch's texts are read and tokenised by themselves.
    """

    groups: Sequence[Group]
    queries: Mapping[str, str]
    documents: Mapping[str, str]
    tokenizer: PairTokenizer
    shape: BatchShape
    tokens: GroupTokens | None = None

    def __call__(self, samples: Sequence[Sample]) -> Batch:
        """The arrays of a batch."""
        shape, tokenizer = self.shape, self.tokenizer
        sizes = np.array([1 + len(sample.negatives) for sample in samples])
        candidate_mask = np.arange(shape.candidates) < sizes[:, None]
        store, query_rows, document_rows = self._find(samples, candidate_mask)
        kept = tokenizer.cut(
            store.queries.lengths[query_rows[candidate_mask]],
            store.documents.lengths[document_rows[candidate_mask]],
        )
        lengths = np.zeros(candidate_mask.shape, np.int64)
        lengths[candidate_mask] = tokenizer.lengths(kept)
        if shape.packing:
            order = balance(lengths.sum(axis=1), shape.accumulation * shape.shard[1])
            samples = [samples[place] for place in order]
            candidate_mask, lengths = candidate_mask[order], lengths[order]
            query_rows, document_rows = query_rows[order], document_rows[order]
        arrays, starts = (_pack if shape.packing else _pad)(lengths, shape, tokenizer)
        own = shape.own(candidate_mask)
        rows = shape.own(query_rows)[own], shape.own(document_rows)[own]
        self._write(arrays, starts, store, *rows)
        arrays["candidate_mask"] = own
        arrays["indices"] = shape.own(np.array([sample.group for sample in samples], np.int32))
        if shape.targets is not None:
            arrays["targets"] = shape.own(self._targets(samples, candidate_mask))
        if shape.accumulation == 1:
            return {name: array[0] for name, array in arrays.items()}
        return arrays

    def _find(
        self, samples: Sequence[Sample], candidate_mask: Bool[np.ndarray, "Q C"]
    ) -> tuple[GroupTokens, Int[np.ndarray, "Q C"], Int[np.ndarray, "Q C"]]:
        """The ids of the texts, and the numbers of each pair's query and document in them."""
        query_ids, document_ids = [], []
        for sample in samples:
            group = self.groups[sample.group]
            query_ids += [group.query_id] * (1 + len(sample.negatives))
            document_ids += candidate_ids(group, sample)
        store = self.tokens
        if store is None:
            unique = [*dict.fromkeys(query_ids)], [*dict.fromkeys(document_ids)]
            store = GroupTokens(
                tokenise_texts("query", unique[0], self.queries, self.tokenizer),
                tokenise_texts("document", unique[1], self.documents, self.tokenizer),
            )
        query_rows, document_rows = np.zeros((2, *candidate_mask.shape), np.int64)
        query_rows[candidate_mask] = store.queries.find(query_ids)
        document_rows[candidate_mask] = store.documents.find(document_ids)
        return store, query_rows, document_rows

    def _write(
        self,
        arrays: Batch,
        starts: Int[np.ndarray, " n"],
        store: GroupTokens,
        query_rows: Int[np.ndarray, " n"],
        document_rows: Int[np.ndarray, " n"],
    ) -> None:
        """Write the ids of the own pairs into the arrays, and count what is cut of them."""
        kept = self._count(store, query_rows, document_rows)
        self.tokenizer.join(
            store.queries.read(query_rows),
            store.documents.read(document_rows),
            kept,
            starts=starts,
            input_ids=arrays["input_ids"].reshape(-1),
            token_type_ids=arrays["token_type_ids"].reshape(-1),
        )

    def _count(
        self,
        store: GroupTokens,
        query_rows: Int[np.ndarray, " n"],
        document_rows: Int[np.ndarray, " n"],
    ) -> Kept:
        """What pairs keep of their texts; what they lose is counted."""
        query_lengths = store.queries.lengths[query_rows]
        document_lengths = store.documents.lengths[document_rows]
        kept = self.tokenizer.cut(query_lengths, document_lengths)
        is_empty = store.documents.is_empty[document_rows]
        self.tokenizer.add_counts(
            count_cuts(query_lengths, document_lengths, kept, is_empty=is_empty)
        )
        return kept

    def _targets(
        self, samples: Sequence[Sample], candidate_mask: Bool[np.ndarray, "Q C"]
    ) -> np.ndarray:
        """What the loss trains on, float32 (Q, C): labels, or a teacher's scores."""
        targets = np.zeros(candidate_mask.shape, np.float32)
        for row, (number, negatives) in enumerate(samples):
            group = self.groups[number]
            values = group.labels if self.shape.targets == "labels" else group.teacher_scores
            if values is None:  # Without labels the positive has 1 and the others 0.
                targets[row, 0] = 1
            else:
                values_of_negatives = [values[1 + place] for place in negatives]
                targets[row, : 1 + len(negatives)] = values[0], *values_of_negatives
        return targets


def _pad(
    lengths: Int[np.ndarray, "Q C"], shape: BatchShape, tokenizer: PairTokenizer
) -> tuple[Batch, Int[np.ndarray, " n"]]:
    """A row a pair: arrays without the pairs' ids yet, and where the ids of each own pair begin."""
    # All rows of a batch have one length, on all processes.
    row_length = bucket_for(int(lengths.max()), shape.buckets)
    own = shape.own(lengths)
    # Where a group has no candidate, one pad token is attended to: over nothing there is no value.
    mask = np.arange(row_length) < np.maximum(own, 1)[..., None]
    starts = np.flatnonzero(own) * row_length
    return _empty(mask.shape, tokenizer) | {"mask": mask}, starts


def _pack(
    lengths: Int[np.ndarray, "Q C"], shape: BatchShape, tokenizer: PairTokenizer
) -> tuple[Batch, Int[np.ndarray, " n"]]:
    """Several pairs in a row: arrays as from `_pad`, rows of the tokenizer's max_length."""
    index, count = shape.shard
    row_length = tokenizer.text.max_length
    cut = lengths.reshape(shape.accumulation, count, -1)
    packed = [[pack(part[part > 0], row_length) for part in processes] for processes in cut]
    most_rows = max(places.num_rows for processes in packed for places in processes)
    rows, texts = round_up_rows(most_rows, shape.rows_multiple), texts_per_row(row_length)

    own = shape.own(lengths)
    parts, starts = [], []
    for number, part in enumerate(own):
        places: Places = packed[number][index]
        arrays = packing_arrays(
            places, part[part > 0], rows=rows, row_length=row_length, texts=texts
        )
        arrays["places"] = np.zeros(part.shape, np.int32)
        arrays["places"][part > 0] = (index * rows + places.row) * texts + places.number
        parts.append(arrays)
        starts.append((number * rows + places.row) * row_length + places.start)
    stacked = {name: np.stack([part[name] for part in parts]) for name in parts[0]}
    ids = _empty((len(parts), rows, row_length), tokenizer)
    return ids | stacked, np.concatenate(starts)


def _empty(shape: tuple[int, ...], tokenizer: PairTokenizer) -> Batch:
    return {
        "input_ids": np.full(shape, tokenizer.pad_token_id, np.int32),
        "token_type_ids": np.zeros(shape, np.int32),
    }
