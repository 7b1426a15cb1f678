"""The work of `jaxrank.rerank`: load the model, score, write, and say what was cut."""

from collections.abc import Callable, Mapping
from pathlib import Path
from time import perf_counter

from ckpt_convert.weight_files import files_of_model
from jaxrank.data.collection import Collection, check_outside
from jaxrank.data.groups import copy_with_scores, read_training_data
from jaxrank.evaluation.runs import Run, check_word, read_run, write_run
from jaxrank.files import Inputs, check_apart, check_target
from jaxrank.ranking.long_documents import Text, TitledDocuments
from jaxrank.ranking.policies import LongDocuments
from jaxrank.ranking.reranking import rerank_run
from jaxrank.ranking.teacher_scores import score_groups
from jaxrank.reranker import Reranker
from jaxrank.reranking_run.checks import check_long_pass, check_options
from jaxrank.reranking_run.options import RerankOptions
from jaxrank.reranking_run.with_states import rerank_from_states

Say = Callable[[str], None]


def rerank(options: RerankOptions, *, say: Say, progress: bool = True) -> None:
    """Score the candidates of a run, or the documents of training groups, and write the result.

    Args:
        say: called with lines for the user, as they come up.

    Raises:
        InputError: options, files or a model that cannot be used. Nothing is written then.
    """
    check_target(options.output)
    check_word(options.tag, "tag")
    long_documents = LongDocuments(
        options.long_documents, window=options.window, stride=options.stride
    )
    check_options(options, long_documents)
    inputs: Inputs = {
        "--run": [options.run],
        "--groups": [options.groups],
        "--model": files_of_model(Path(options.model)),
        "--document_states": [options.document_states],
    }
    check_apart(options.output, inputs)
    check_outside(options.output, options.collection)
    work = _rerank_candidates if options.groups is None else _score_groups
    work(options, long_documents, say, progress)
    say(f"wrote {options.output}")


def _rerank_candidates(
    options: RerankOptions, long_documents: LongDocuments, say: Say, progress: bool
) -> None:
    assert options.run is not None
    first_stage = read_run(options.run)
    collection = _open_collection(options, progress)
    assert collection is not None
    model = _load(options)
    states = None
    if options.document_states is not None:
        states = model.document_states.open(options.document_states, verify=options.verify_states)
    begin = perf_counter()
    if states is None:
        reranked, notes = _score_texts(
            model, first_stage, collection, long_documents, options, progress
        )
    else:
        reranked, notes = rerank_from_states(
            model, states, first_stage, collection, options, say=say, progress=progress
        )
    write_run(options.output, reranked, tag=options.tag)
    pairs = sum(map(len, reranked.values()))
    say(_speed(pairs, f"{len(reranked)} queries", begin))
    if dropped := sum(map(len, first_stage.values())) - pairs:
        say(f"{dropped} candidates below depth {options.depth} left out")
    for line in notes:
        say(line)


def _score_texts(
    model: Reranker,
    first_stage: Run,
    collection: Collection,
    long_documents: LongDocuments,
    options: RerankOptions,
    progress: bool,
) -> tuple[Run, list[str]]:
    """The run of the scores of pairs of texts, and what is to be said of it."""
    documents: Mapping[str, Text] = collection.documents
    if options.window_title:
        documents = TitledDocuments(collection.documents)
    scorer = model.document_scorer(long_documents, options.texts_at_once)
    reranked = rerank_run(
        first_stage,
        collection.queries,
        documents,
        scorer.scores,
        depth=options.depth,
        run_name=str(options.run),
        collection_name=str(options.collection),
        progress=progress,
    )
    return reranked, _what_was_cut(model, long_documents, options)


def _score_groups(
    options: RerankOptions, long_documents: LongDocuments, say: Say, progress: bool
) -> None:
    assert options.groups is not None
    collection = _open_collection(options, progress)
    data = read_training_data(
        options.groups,
        queries=None if collection is None else collection.queries,
        documents=None if collection is None else collection.documents,
    )
    model = _load(options)
    begin = perf_counter()
    scored = score_groups(
        data,
        lambda pairs: model.predict(pairs, options.texts_at_once, long_documents=long_documents),
        progress=progress,
    )
    copy_with_scores(options.groups, options.output, scored)
    pairs = sum(1 + len(group.negative_ids) for group in data.groups)
    say(_speed(pairs, f"{len(data.groups)} groups", begin))
    for line in _what_was_cut(model, long_documents, options):
        say(line)


def _open_collection(options: RerankOptions, progress: bool) -> Collection | None:
    if options.collection is None:
        return None
    return Collection.open(
        options.collection, document_text=options.document_text, progress=progress
    )


def _load(options: RerankOptions) -> Reranker:
    model = Reranker.from_pretrained(
        options.model, dtype=options.dtype, max_length=options.max_length
    )
    check_long_pass(options, model.text.max_length)
    return model


def _what_was_cut(
    model: Reranker, long_documents: LongDocuments, options: RerankOptions
) -> list[str]:
    counts = model.document_scorer(long_documents, options.texts_at_once).counts
    return [*([] if counts is None else counts.lines()), model.truncation.summary()]


def _speed(pairs: int, of: str, begin: float) -> str:
    seconds = perf_counter() - begin
    return f"{pairs} pairs of {of} in {seconds:.1f} s, {pairs / seconds:.1f} pairs/s"
