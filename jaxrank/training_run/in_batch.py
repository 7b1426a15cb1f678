"""A run whose queries meet all documents of their part of a batch: what it needs and leaves out.

What such a batch is, `training.step.make_train_step` says.
"""

from typing import NamedTuple

from jaxrank.data.collection import Collection, find_qrels
from jaxrank.data.groups import TrainingData
from jaxrank.data.in_batch_negatives import (
    RelevantDocuments,
    count_pairs,
    count_repeated_queries,
    known_relevant,
)
from jaxrank.data.samples import draw_samples
from jaxrank.errors import InputError
from jaxrank.models.families import state_arrays
from jaxrank.text.document_first import DocumentFirst
from jaxrank.text.tokenize import PairTokenizer
from jaxrank.training.config import Recipe
from jaxrank.training_run.start import Start

_OPTION = "loss.in_batch_negatives"
_DEFAULT_SPLIT = "train"
_BATCHES_TO_COUNT = 100


class SideLengths(NamedTuple):
    """The most tokens of each side of a pair."""

    document: int
    query: int


def check_in_batch(recipe: Recipe, start: Start) -> SideLengths | None:
    """The longest sides of a run with in-batch negatives; None for a run without.

    Raises:
        InputError: the model keeps no state of a fixed size, or the template's sides depend on each
            other.
    """
    if not recipe.loss.in_batch_negatives:
        return None
    family = start.config.family
    try:
        arrays = state_arrays(family, start.config.backbone)
        sides = DocumentFirst(PairTokenizer(start.tokenizer, start.text))
    except InputError as error:
        raise InputError(f"{_OPTION}: {error}") from None
    if any(array.per_token for array in arrays):
        raise InputError(
            f"{_OPTION}: family {family!r} keeps keys and values of every token, of which each "
            f"query would need a copy of its own; mamba or mamba2 is needed, or {_OPTION} false"
        )
    return SideLengths(sides.document_budget, sides.query_budget)


def find_relevant(
    recipe: Recipe, data: TrainingData, collection: Collection | None
) -> tuple[RelevantDocuments, str]:
    """What is known to be relevant to each query, and a note on what that leaves out.

    Raises:
        InputError: there are no judgements of the split that the recipe names.
    """
    split = recipe.data.relevance_split
    if split is None and collection is not None and find_qrels(collection.folder, _DEFAULT_SPLIT):
        split = _DEFAULT_SPLIT
    qrels = {} if split is None or collection is None else collection.qrels(split)
    relevant = known_relevant(data.groups, qrels, data.queries)
    return relevant, _describe(recipe, data, relevant, split)


def _describe(
    recipe: Recipe, data: TrainingData, relevant: RelevantDocuments, split: str | None
) -> str:
    """How many documents a query meets and how many pairs do not count, in one line."""
    per_batch, candidates = recipe.data.groups_per_batch, 1 + recipe.data.negatives
    groups_together = per_batch // recipe.training.accumulation
    samples = draw_samples(data.groups, negatives=recipe.data.negatives, seed=recipe.training.seed)
    counted = min(_BATCHES_TO_COUNT, max(1, len(data.groups) // per_batch))
    drawn = (samples[place] for place in range(counted * per_batch))
    counts = count_pairs(
        data.groups,
        [sample for sample in drawn if sample is not None],
        relevant,
        groups_together=groups_together,
        candidates=candidates,
    )
    source = f"qrels of split {split} and the groups' positives"
    if split is None:
        source = (
            "the groups' positives alone, as no qrels were found; data.relevance_split names them"
        )
    if repeated := count_repeated_queries(data.groups, data.queries):
        repeat = "query repeats the text of another and shares"
        if repeated > 1:
            repeat = "queries repeat the text of another and share"
        source += f"; {repeated:,} {repeat} what is relevant"
    first = "batch" if counted == 1 else f"{counted} batches"
    return (
        f"{_OPTION}: a query meets the {groups_together * candidates} documents of "
        f"{groups_together} groups; of {counts.pairs:,} pairs across groups in the first {first}, "
        f"{counts.relevant:,} are left out as relevant (by {source}) and "
        f"{counts.repeated:,} as repeated"
    )
