"""Batches for training: groups shuffled, negatives drawn, tokenised and padded, ahead of use.

Everything that a batch holds is a function of (seed, number of the batch), so the same seed gives
the same batches whatever the number of threads, and an iterator's state is one number.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import grain
import numpy as np

from jaxrank.data.groups import Group
from jaxrank.errors import InputError
from jaxrank.text.buckets import bucket_for, length_buckets
from jaxrank.text.tokenize import PairTokenizer, TokenizedPair, pad_pairs

# Endless for any training. A dataset of sys.maxsize samples fails when batched one by one.
_SAMPLES_AT_MOST = 2**48


class _Sample(NamedTuple):
    """A group with the negatives of this epoch."""

    group: int
    negative_ids: list[str]


def training_batches(
    groups: Sequence[Group],
    queries: Mapping[str, str],
    documents: Mapping[str, str],
    tokenizer: PairTokenizer,
    *,
    groups_per_batch: int,
    negatives: int,
    seed: int,
    buckets: Sequence[int] | None = None,
    num_threads: int = 2,
    prefetch: int = 8,
) -> grain.IterDataset:
    """An endless stream of batches; its iterators have `get_state` and `set_state`.

    Each epoch visits every group once, in an order of its own and with freshly drawn negatives. A
    batch that an epoch's last groups do not fill goes on with the next epoch's first ones, so all
    batches have the same size and no group is left out; an epoch is
    `len(groups) / groups_per_batch` batches.

    A batch is a dict of numpy arrays, the positive at candidate 0:

        input_ids, token_type_ids   int32 (Q, C, L), C = 1 + negatives, L a bucket
        mask                        bool (Q, C, L), True for real tokens
        candidate_mask              bool (Q, C), False where a group has fewer negatives; such a
                                    place holds one pad token, since attention over nothing at
                                    all has no value
        indices                     int32 (Q,), positions in `groups`

    Args:
        groups: what to train on; a group with fewer than `negatives` gives all it has.
        queries: query id -> text.
        documents: document id -> text; read from several threads.
        tokenizer: encodes the pairs and counts what it cuts, batches read ahead included.
        groups_per_batch: Q.
        negatives: drawn without replacement from each group's, anew each epoch.
        seed: of the order and of the negatives.
        buckets: lengths that batches are padded to, the last at least the tokenizer's
            max_length. Default: `length_buckets(max_length)`.
        num_threads: threads that make batches; 0 makes each one when it is asked for.
        prefetch: batches made ahead.

    Raises:
        InputError: fewer groups than one batch takes, or no negatives asked for.
    """
    max_length = tokenizer.text.max_length
    lengths = sorted(buckets) if buckets is not None else length_buckets(max_length)
    bucket_for(max_length, lengths)
    if negatives < 1 or groups_per_batch < 1:
        raise InputError(
            f"a batch of {groups_per_batch} groups with {negatives} negatives; at least 1 of each "
            "is needed"
        )
    if len(groups) < groups_per_batch:
        raise InputError(
            f"{len(groups)} groups do not fill a batch of {groups_per_batch}; lower the batch size"
        )

    def draw(position: int, group: int) -> _Sample:
        epoch = position // len(groups)
        pool = groups[group].negative_ids
        # Philox counts, so a stream of its own for each (seed, epoch, group) costs no state.
        random = np.random.Generator(np.random.Philox(np.random.SeedSequence([seed, epoch, group])))
        chosen = random.permutation(len(pool))[:negatives]
        return _Sample(group, [pool[place] for place in chosen])

    def collate(samples: Sequence[_Sample]) -> dict[str, np.ndarray]:
        pairs = []
        for group, negative_ids in samples:
            query = queries[groups[group].query_id]
            for document_id in (groups[group].positive_id, *negative_ids):
                pairs.append((query, documents[document_id]))
        tokenized = iter(tokenizer.encode(pairs))
        sizes = np.array([1 + len(sample.negative_ids) for sample in samples])
        candidate_mask = np.arange(1 + negatives)[None, :] < sizes[:, None]
        nothing = TokenizedPair(np.array([tokenizer.pad_token_id], np.int32), np.zeros(1, np.int32))
        rows = [next(tokenized) if real else nothing for real in candidate_mask.ravel()]
        length = bucket_for(max(len(row.input_ids) for row in rows), lengths)
        flat = pad_pairs(rows, length=length, pad_token_id=tokenizer.pad_token_id)
        shape = (*candidate_mask.shape, length)
        batch = {name: array.reshape(shape) for name, array in flat.items()}
        indices = np.array([sample.group for sample in samples], np.int32)
        return batch | {"candidate_mask": candidate_mask, "indices": indices}

    # grain adds the epoch to the seed, so neighbouring seeds would share orders: spread them.
    shuffle_seed = int(np.random.SeedSequence(seed).generate_state(1)[0])
    return (
        grain.MapDataset.source(range(len(groups)))
        .shuffle(seed=shuffle_seed)
        .repeat(max(1, _SAMPLES_AT_MOST // len(groups)))
        .map_with_index(draw)
        .batch(groups_per_batch, batch_fn=collate)
        .to_iter_dataset(
            grain.ReadOptions(
                num_threads=num_threads,
                prefetch_buffer_size=max(prefetch, num_threads) if num_threads else 0,
            )
        )
    )
