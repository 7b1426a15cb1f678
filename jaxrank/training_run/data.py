"""What a training run reads: batches of groups, and the sample of the dev measure."""

from collections.abc import Mapping
from typing import NamedTuple

import grain
import jax
import numpy as np

from jaxrank.data.collection import Collection
from jaxrank.data.groups import TrainingData, read_training_data
from jaxrank.data.packing import balance, pack, round_up_rows
from jaxrank.data.pipeline import training_batches
from jaxrank.data.tokens.store import open_token_store
from jaxrank.data.tokens.table import GroupTokens, tokenise_groups
from jaxrank.evaluation.runs import read_run
from jaxrank.files import check_target, file_digest
from jaxrank.text.templates import Field
from jaxrank.text.tokenize import PairTokenizer
from jaxrank.training.config import Recipe
from jaxrank.training.dev import DevSample, draw_sample
from jaxrank.training.losses import targets_of
from jaxrank.training.processes import is_first_process, wait_for_all
from jaxrank.training_run.in_batch import find_relevant


class RunBatches(NamedTuple):
    """Training batches, and how they came to be."""

    batches: grain.IterDataset
    """The share of this process."""
    notes: tuple[str, ...] = ()
    """For the user, one line each."""


def load_groups(recipe: Recipe, collection: Collection | None) -> TrainingData:
    """Read the groups and what their ids stand for."""
    return read_training_data(
        recipe.data.groups,
        queries=None if collection is None else collection.queries,
        documents=None if collection is None else collection.documents,
        min_negatives=recipe.data.min_negatives or recipe.data.negatives,
        targets=targets_of(recipe.loss),
    )


def make_batches(
    recipe: Recipe,
    data: TrainingData,
    collection: Collection | None,
    tokenizer: PairTokenizer,
    *,
    progress: bool = False,
) -> RunBatches:
    """Set up this process's stream of batches; pretokenising takes a while.

    Several processes need the lengths of all texts, so their input is pretokenised in any case.
    """
    shard = jax.process_index(), jax.process_count()
    notes: list[str] = []
    tokens: GroupTokens | None = None
    if recipe.data.token_store is not None:
        tokens, notes = _stored_tokens(recipe, data, collection, tokenizer, progress=progress)
    elif recipe.data.pretokenize or shard[1] > 1:
        tokens = tokenise_groups(
            data.groups, data.queries, data.documents, tokenizer, progress=progress
        )
        notes.append(tokens.summary())
    relevant = None
    if recipe.loss.in_batch_negatives:
        relevant, note = find_relevant(recipe, data, collection)
        notes = [*notes, note]
    batches = training_batches(
        data.groups,
        data.queries,
        data.documents,
        tokenizer,
        groups_per_batch=recipe.data.groups_per_batch,
        negatives=recipe.data.negatives,
        seed=recipe.training.seed,
        targets=targets_of(recipe.loss),
        packing=recipe.data.packing,
        accumulation=recipe.training.accumulation,
        tokens=tokens,
        relevant_documents=relevant,
        shard=shard,
        rows_multiple=jax.local_device_count(),
        num_threads=recipe.data.num_threads,
    )
    if recipe.data.packing:
        notes.append(_describe_packing(recipe, data, tokenizer))
    return RunBatches(batches, tuple(notes))


def _stored_tokens(
    recipe: Recipe,
    data: TrainingData,
    collection: Collection | None,
    tokenizer: PairTokenizer,
    *,
    progress: bool,
) -> tuple[GroupTokens, list[str]]:
    """The ids of all texts from the recipe's token store; the first process fills it."""
    folder = recipe.data.token_store
    assert folder is not None
    check_target(folder, is_folder=True)
    if not is_first_process():
        # They find it filled then, unless their host has a disk of its own.
        wait_for_all("token store is filled")
    store, notes = open_token_store(
        folder,
        data.groups,
        data.queries,
        data.documents,
        tokenizer,
        sources=_text_sources(recipe, collection),
        progress=progress,
    )
    if is_first_process():
        wait_for_all("token store is filled")
    return store, list(notes)


def _text_sources(recipe: Recipe, collection: Collection | None) -> Mapping[Field, str]:
    """Digests of the files, and of the choice of fields, that say what text an id stands for."""
    if collection is None:
        digest = file_digest(recipe.data.groups)
        return {"query": digest, "document": digest}
    chosen = collection.documents.document_text
    return {
        "query": collection.queries_digest(),
        "document": f"{collection.documents_digest()} {chosen}",
    }


def _describe_packing(recipe: Recipe, data: TrainingData, tokenizer: PairTokenizer) -> str:
    """How well the pairs of as many groups as a step takes pack, in one line."""
    groups = data.groups[: recipe.data.groups_per_batch]
    row_length = tokenizer.text.max_length
    lengths = []
    for group in groups:
        document_ids = (group.positive_id, *group.negative_ids[: recipe.data.negatives])
        query = data.queries[group.query_id]
        encoded, _ = tokenizer.encode_and_count(
            [(query, data.documents[document_id]) for document_id in document_ids]
        )
        lengths.append([len(pair.input_ids) for pair in encoded])
    # Each part of each process is packed by itself, and all get as many rows.
    parts = recipe.training.accumulation * jax.process_count()
    order = balance(np.array([sum(group) for group in lengths]), parts)
    rows = [
        pack(np.concatenate([lengths[group] for group in share]), row_length).num_rows
        for share in np.reshape(order, (parts, -1)).tolist()
    ]
    sizes = [length for group in lengths for length in group]
    num_rows = parts * round_up_rows(max(rows), jax.local_device_count())
    return (
        f"packing: the {len(sizes):,} pairs of the first {len(groups)} groups, of "
        f"{np.mean(sizes):.0f} tokens on average, take {num_rows:,} rows of {row_length} tokens, "
        f"{sum(sizes) / (num_rows * row_length):.0%} filled"
    )


def load_dev_sample(
    recipe: Recipe, collection: Collection | None, tokenizer: PairTokenizer
) -> tuple[DevSample | None, tuple[str, ...]]:
    """The sample of the dev measure, if the recipe has one, and notes for the user."""
    if recipe.dev.run is None or collection is None:
        return None, ()
    sample = draw_sample(
        recipe.dev,
        run=read_run(recipe.dev.run),
        qrels=collection.qrels(recipe.dev.split),
        queries=collection.queries,
        documents=collection.documents,
        tokenizer=tokenizer,
    )
    without = len(sample.qrels) - len(sample.candidates)
    if not without:
        return sample, ()
    count = f"{without} of {len(sample.qrels)} dev queries"
    return sample, (f"{count} have no candidates in {recipe.dev.run} and count 0",)
