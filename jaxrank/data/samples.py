"""Groups as an epoch draws them: with some of their negatives, in an order of its own."""

from collections.abc import Sequence
from typing import NamedTuple

import grain
import numpy as np

from jaxrank.data.groups import Group

# Endless for any training. A dataset of sys.maxsize samples fails when batched one by one.
_SAMPLES_AT_MOST = 2**48


class Sample(NamedTuple):
    """A group with the negatives of this epoch, as places in its `negative_ids`."""

    group: int
    negatives: list[int]


def candidate_ids(group: Group, sample: Sample) -> list[str]:
    """The documents of a drawn group, its positive first."""
    return [group.positive_id, *(group.negative_ids[place] for place in sample.negatives)]


def draw_samples(groups: Sequence[Group], *, negatives: int, seed: int) -> grain.MapDataset:
    """An endless sequence of samples: epoch after epoch all groups, each time shuffled anew.

    Args:
        negatives: drawn without replacement from each group's, anew each epoch; a group with fewer
            gives all it has.
        seed: of the order and of the negatives.
    """

    def draw(position: int, group: int) -> Sample:
        epoch = position // len(groups)
        # Philox counts, so a stream of its own for each (seed, epoch, group) costs no state.
        random = np.random.Generator(np.random.Philox(np.random.SeedSequence([seed, epoch, group])))
        chosen = random.permutation(len(groups[group].negative_ids))[:negatives]
        return Sample(group, chosen.tolist())

    # grain adds the epoch to the seed, so neighbouring seeds would share orders: spread them.
    shuffle_seed = int(np.random.SeedSequence(seed).generate_state(1)[0])
    return (
        grain.MapDataset.source(range(len(groups)))
        .shuffle(seed=shuffle_seed)
        .repeat(max(1, _SAMPLES_AT_MOST // len(groups)))
        .map_with_index(draw)
    )
