"""Batches whose queries meet all of their documents: each text is there once.

What such a batch is, `training.step.make_train_step` says; which of its pairs count,
`in_batch_negatives`.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Bool

from jaxrank.data.batches import Batch, BatchMaker
from jaxrank.data.in_batch_negatives import RelevantDocuments, mask_pairs
from jaxrank.data.samples import Sample, candidate_ids
from jaxrank.text.buckets import bucket_for, few_buckets, length_buckets
from jaxrank.text.document_first import DocumentFirst
from jaxrank.text.templates import Field


@dataclass(frozen=True)
class SharedBatchMaker(BatchMaker):
    """A BatchMaker for documents and queries apart, which its groups' parts share.

    Each side is padded to a bucket of its own; those of `shape` are not looked at.
    """

    sides: DocumentFirst = field(kw_only=True)
    """Of the same tokenizer."""
    relevant: RelevantDocuments = field(kw_only=True)
    """To queries; these are not among a query's negatives."""

    def __call__(self, samples: Sequence[Sample]) -> Batch:
        """The arrays of a batch."""
        shape = self.shape
        sizes = np.array([1 + len(sample.negatives) for sample in samples])
        candidate_mask = np.arange(shape.candidates) < sizes[:, None]
        store, query_rows, document_rows = self._find(samples, candidate_mask)
        is_own = shape.own(candidate_mask)
        own_queries, own_documents = shape.own(query_rows), shape.own(document_rows)
        query_lengths = self.sides.lengths("query", store.queries.lengths[query_rows[:, 0]])
        document_lengths = np.ones(candidate_mask.shape, np.int64)
        document_lengths[candidate_mask] = self.sides.lengths(
            "document", store.documents.lengths[document_rows[candidate_mask]]
        )
        arrays = {
            **self._side("query", query_lengths, store.queries.read(own_queries[..., 0].ravel())),
            **self._side(
                "document",
                document_lengths,
                store.documents.read(own_documents[is_own]),
                where=is_own,
            ),
            "candidate_mask": self._pair_mask(samples),
            "indices": shape.own(np.array([sample.group for sample in samples], np.int32)),
        }
        self._count(store, own_queries[is_own], own_documents[is_own])
        if shape.accumulation == 1:
            return {name: array[0] for name, array in arrays.items()}
        return arrays

    def _side(
        self,
        field: Field,
        lengths: np.ndarray,
        texts: Iterable[np.ndarray],
        where: Bool[np.ndarray, "P G C"] | None = None,
    ) -> Batch:
        """Ids and mask of one side of the own groups.

        Args:
            lengths: of the sides of all groups; all processes give their rows the same length.
            texts: the ids of the own texts.
            where: which places have one; None: all. The others hold one pad token.
        """
        # A step is compiled for each pair of a document's bucket and a query's, so of these there
        # are few.
        buckets_up_to = length_buckets if field == "document" else few_buckets
        buckets = buckets_up_to(self.sides.budget_of(field))
        row_length = bucket_for(int(lengths.max()), buckets)
        own_lengths = self.shape.own(lengths)
        mask = np.arange(row_length) < own_lengths[..., None]
        ids = np.full(mask.shape, self.tokenizer.pad_token_id, np.int32)
        places = np.ones(own_lengths.shape, np.bool_) if where is None else where
        for place, text in zip(np.argwhere(places), texts, strict=True):
            side = self.sides.side(field, text)
            ids[tuple(place)][: len(side)] = side
        return {f"{field}_ids": ids, f"{field}_mask": mask}

    def _pair_mask(self, samples: Sequence[Sample]) -> Bool[np.ndarray, "P G N"]:
        """Which documents of their part count for the own queries."""
        groups = [self.groups[sample.group] for sample in samples]
        together = len(groups) // self.shape.accumulation
        masks = []
        for start in range(0, len(groups), together):
            part = slice(start, start + together)
            mask, _ = mask_pairs(
                [group.query_id for group in groups[part]],
                [candidate_ids(*pair) for pair in zip(groups[part], samples[part], strict=True)],
                self.relevant,
                candidates=self.shape.candidates,
            )
            masks.append(mask)
        return self.shape.own(np.concatenate(masks))
