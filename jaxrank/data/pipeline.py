"""Batches for training: groups shuffled, negatives drawn, tokenised and padded, ahead of use.

Everything that a batch holds is a function of (seed, number of the batch), so the same seed gives
the same batches whatever the number of threads, and an iterator's state is one number.
"""

from collections.abc import Callable, Mapping, Sequence

import grain

from jaxrank.data.batches import Batch, BatchMaker, BatchShape
from jaxrank.data.groups import Group, Targets
from jaxrank.data.in_batch_negatives import RelevantDocuments
from jaxrank.data.samples import Sample, draw_samples
from jaxrank.data.shared_batches import SharedBatchMaker
from jaxrank.data.tokens.table import GroupTokens
from jaxrank.errors import InputError
from jaxrank.text.buckets import bucket_for, length_buckets
from jaxrank.text.document_first import DocumentFirst
from jaxrank.text.tokenize import PairTokenizer


def training_batches(
    groups: Sequence[Group],
    queries: Mapping[str, str],
    documents: Mapping[str, str],
    tokenizer: PairTokenizer,
    *,
    groups_per_batch: int,
    negatives: int,
    seed: int,
    targets: Targets | None = None,
    packing: bool = False,
    accumulation: int = 1,
    tokens: GroupTokens | None = None,
    relevant_documents: RelevantDocuments | None = None,
    shard: tuple[int, int] = (0, 1),
    rows_multiple: int = 1,
    buckets: Sequence[int] | None = None,
    num_threads: int = 2,
    prefetch: int = 8,
) -> grain.IterDataset:
    """An endless stream of batches; its iterators have `get_state` and `set_state`.

    Each epoch visits every group once, in an order of its own and with freshly drawn negatives. A
    batch that an epoch's last groups do not fill goes on with the next epoch's first ones, so all
    batches have the same size and no group is left out; an epoch is
    `len(groups) / groups_per_batch` batches.

    A batch is a dict of numpy arrays, as `training.step.make_train_step` documents them, the
    positive at candidate 0, and `indices`, int32 (Q,): positions in `groups`. In padded batches L
    is a bucket, and where a group has fewer negatives than C - 1, such a place holds one pad token,
    since attention over nothing at all has no value; packed batches leave such a place out. Packed
    rows have `max_length` tokens; how many there are differs from batch to batch by few sizes.

    Args:
        groups: what to train on; a group with fewer than `negatives` gives all it has.
        queries: query id -> text.
        documents: document id -> text; read from several threads.
        tokenizer: encodes the pairs and counts what it cuts, batches read ahead included.
        groups_per_batch: Q, of all parts and processes together.
        negatives: drawn without replacement from each group's, anew each epoch.
        seed: of the order and of the negatives.
        targets: what the array `targets` holds. Labels are 1 for the positive and 0 for negatives
            where a group has none of its own. Teacher scores must be there for every group.
        packing: several pairs in a row.
        accumulation: parts of a batch; above 1 all arrays have an axis of them in front.
        tokens: the ids of the texts of `groups`, by the same tokenizer; `queries` and `documents`
            are not read then. None: texts are tokenised as batches are made.
        relevant_documents: None: each query meets its own group's documents. Else each meets all
            documents of its part of the batch, of all processes, but those given here for it; the
            batch has documents and queries apart, each padded to a bucket of its own.
        shard: which process of how many this is. A batch holds the groups of this one only, of each
            part; joined over the processes, they are the batch of one process alone (packed, in
            another order, which evens out their tokens). Shapes are equal on all processes, and
            `places` counts over the rows of all of them. Needs `tokens` where there are several
            processes, whose lengths say the shape.
        rows_multiple: a number that packed rows are a multiple of.
        buckets: lengths that padded batches may have, the last at least the tokenizer's
            max_length. Default: `length_buckets(max_length)`.
        num_threads: threads that make batches; 0 makes each one when it is asked for.
        prefetch: batches made ahead.

    Raises:
        InputError: fewer groups than one batch takes, no negatives asked for, groups that cannot be
            cut into equal parts for all processes, a group without teacher scores, or a template
            whose sides depend on each other for a batch that has them apart.
    """
    max_length = tokenizer.text.max_length
    lengths = sorted(buckets) if buckets is not None else length_buckets(max_length)
    bucket_for(max_length, lengths)
    _check(groups, groups_per_batch, negatives, accumulation, shard[1], targets)
    if relevant_documents is not None and (packing or targets is not None or buckets is not None):
        raise ValueError("documents apart from queries go with no packing, targets or buckets")
    if tokens is None and shard[1] > 1:
        raise ValueError("several processes need tokens: lengths of all texts say the shapes")

    shape = BatchShape(
        candidates=1 + negatives,
        buckets=lengths,
        targets=targets,
        packing=packing,
        accumulation=accumulation,
        shard=shard,
        rows_multiple=rows_multiple,
    )
    make: Callable[[Sequence[Sample]], Batch]
    texts = groups, queries, documents, tokenizer, shape, tokens
    if relevant_documents is None:
        make = BatchMaker(*texts)
    else:
        sides = DocumentFirst(tokenizer)
        make = SharedBatchMaker(*texts, sides=sides, relevant=relevant_documents)
    return (
        draw_samples(groups, negatives=negatives, seed=seed)
        .batch(groups_per_batch, batch_fn=make)
        .to_iter_dataset(
            grain.ReadOptions(
                num_threads=num_threads,
                prefetch_buffer_size=max(prefetch, num_threads) if num_threads else 0,
            )
        )
    )


def _check(
    groups: Sequence[Group],
    groups_per_batch: int,
    negatives: int,
    accumulation: int,
    processes: int,
    targets: Targets | None,
) -> None:
    if negatives < 1 or groups_per_batch < 1:
        raise InputError(
            f"a batch of {groups_per_batch} groups with {negatives} negatives; at least 1 of each "
            "is needed"
        )
    if len(groups) < groups_per_batch:
        raise InputError(
            f"{len(groups)} groups do not fill a batch of {groups_per_batch}; lower the batch size"
        )
    if groups_per_batch % (accumulation * processes):
        raise InputError(
            f"groups_per_batch: got {groups_per_batch}; {accumulation} equal parts for {processes} "
            f"processes need a multiple of {accumulation * processes}"
        )
    if targets == "teacher_scores":
        lacking = sum(group.teacher_scores is None for group in groups)
        if lacking:
            raise InputError(
                f"{lacking} of {len(groups)} groups have no teacher scores, which the loss needs"
            )
