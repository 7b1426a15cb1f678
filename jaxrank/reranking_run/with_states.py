"""A run ordered anew from states of documents, so that of most documents nothing is read again."""

import shlex
from collections.abc import Callable, Iterator, Mapping, Sequence

from jaxrank.data.collection import Collection
from jaxrank.evaluation.runs import Run
from jaxrank.progress import progress_bar
from jaxrank.ranking.document_states.disk.store import StateStore
from jaxrank.ranking.document_states.encoding import DocumentEncoder
from jaxrank.ranking.document_states.formats import stored_bytes
from jaxrank.ranking.document_states.states import DocumentStates
from jaxrank.ranking.document_states.texts import check_texts
from jaxrank.ranking.reranking import find_candidates
from jaxrank.reranker import Reranker
from jaxrank.reranking_run.completed_states import CompletedStates, ComputedStates
from jaxrank.reranking_run.options import RerankOptions

Say = Callable[[str], None]

# Documents that are read together, of several queries: enough for full batches of like lengths.
_READ_TOGETHER = 256


def rerank_from_states(
    model: Reranker,
    stored: StateStore,
    first_stage: Run,
    collection: Collection,
    options: RerankOptions,
    *,
    say: Say,
    progress: bool,
) -> tuple[Run, list[str]]:
    """Score the candidates of every query from `stored`; read the documents that it lacks.

    Args:
        say: called with what is known before anything is read or scored.

    Returns:
        The run of the scores, and what is to be said of it.

    Raises:
        InputError: what `find_candidates` raises; a state that was made of another text than the
            collection's; a damaged state, or a state or score that is not finite.
    """
    candidates = find_candidates(
        first_stage,
        collection.queries,
        collection.documents,
        depth=options.depth,
        run_name=str(options.run),
        collection_name=str(options.collection),
    )
    distinct = list({name: None for ids in candidates.values() for name in ids})
    lacking = frozenset(stored.missing(distinct))
    there = [name for name in distinct if name not in lacking]
    check_texts(stored, collection.documents, there, progress=progress)
    encoder = model.document_states.encoder(stored.dtype, options.texts_at_once)
    scorer = model.document_states.scorer(options.batch_size)
    say(
        f"states of {options.document_states}: {stored.dtype}, computed in {stored.computed_in}; "
        f"queries in {encoder.computed_in}"
    )
    if lacking:
        say(_what_is_missing(stored, encoder, len(lacking), len(distinct), options))
    capacity_bytes = int(options.states_memory_gb * 1e9)
    computed = ComputedStates(encoder, collection.documents)
    states = CompletedStates(stored, computed, capacity_bytes=capacity_bytes)
    most_bytes = stored_bytes(encoder.specs, encoder.dtype, encoder.identity.document_budget)
    together = min(_READ_TOGETHER, capacity_bytes // most_bytes)
    run: Run = {}
    total = sum(map(len, candidates.values()))
    with progress_bar(description="reranking", unit="pair", enabled=progress, total=total) as bar:
        for queries, missing in group_queries(candidates, stored, together):
            if len(queries) > 1 and missing:
                states.read_ahead(missing)
            for query_id in queries:
                ids = candidates[query_id]
                scores = scorer.score(collection.queries[query_id], states, ids)
                run[query_id] = dict(zip(ids, map(float, scores), strict=True))
                bar.update(len(ids))
    notes = []
    if again := computed.readings - len(lacking):
        notes.append(f"{again:,} documents were read again for want of --states_memory_gb")
    if lacking:
        notes.append(encoder.tokenizer.document_counts.summary("documents"))
    notes.append(scorer.tokenizer.query_counts.summary("queries"))
    return run, notes


def group_queries(
    candidates: Mapping[str, Sequence[str]], stored: DocumentStates, together: int
) -> Iterator[tuple[list[str], list[str]]]:
    """Yield queries in their order with the documents that they lack, each once.

    Several queries stand together as long as they lack at most `together` documents.
    """
    queries: list[str] = []
    missing: dict[str, None] = {}
    for query_id, ids in candidates.items():
        added = dict.fromkeys(stored.missing(ids))
        if queries and len(missing | added) > together:
            yield queries, list(missing)
            queries, missing = [], {}
        queries.append(query_id)
        missing |= added
    if queries:
        yield queries, list(missing)


def _what_is_missing(
    stored: DocumentStates,
    encoder: DocumentEncoder,
    missing: int,
    candidates: int,
    options: RerankOptions,
) -> str:
    """How much is read in this run, in which precision if in another, and what would save it."""
    precision = ""
    if encoder.computed_in != stored.computed_in:
        precision = (
            f", computed in {encoder.computed_in} beside states in {stored.computed_in} (--dtype "
            f"{stored.computed_in} computes all alike)"
        )
    return (
        f"{missing:,} of {candidates:,} documents are not in {options.document_states} and are "
        f"read now{precision}; add them: {command_to_add(stored, options)}"
    )


def command_to_add(stored: DocumentStates, options: RerankOptions) -> str:
    """What adds the run's documents to the states, to be copied."""
    words = ["--model", options.model, "--collection", options.collection]
    words += ["--output", options.document_states, "--runs", options.run]
    for name in ("depth", "max_length", "document_text"):
        value = getattr(options, name)
        if value is not None:
            words += [f"--{name}", value]
    words += ["--dtype", stored.dtype, "--compute_dtype", stored.computed_in]
    return "python -m jaxrank.encode_documents " + shlex.join(map(str, words))
