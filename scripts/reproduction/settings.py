"""Options that both reproductions have, and what follows from them."""

import difflib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

from jaxrank.data.collection import QUERIES_FILE, find_documents, find_queries
from jaxrank.data.document_text import DocumentText
from jaxrank.data.importing.layouts.beir import CORPUS_FILE
from jaxrank.data.importing.layouts.collection_source import find_file
from jaxrank.errors import InputError
from scripts.reproduction.model_steps import Reranking
from scripts.reproduction.official_files import missing_files
from scripts.reproduction.plan import FirstStage, FirstStageName, Source
from scripts.reproduction.recipe_layers import ROOT, recipe_layers
from scripts.reproduction.steps import Step
from scripts.reproduction.training_plan import OpenOption


@dataclass(frozen=True, kw_only=True)
class CommonOptions:
    """What a user chooses in either reproduction."""

    model: str
    """The model's row: a file of the paper's folder in configs/, say mamba-130m."""

    collection: Path | None = None
    """A collection folder of your own, with splits train and those of `sets`, in place of the
    official files."""

    document_text: DocumentText | None = None
    """Which of a document's fields are read. Null: as the recipe or the collection says."""

    runs: Path | None = None
    """Folder with SPLIT.run for train and each set: candidates of your own, for `first_stage` own.
    """

    depth: int = 100
    """Candidates a question; RankMamba has 100."""

    dtype: Literal["float32", "bfloat16"] = "float32"
    """What reranking computes in; float32 is exact, bfloat16 faster on GPUs."""

    batch_size: int = 64
    """Pairs reranked at once; changes speed and memory, not scores."""

    plan: bool = False
    """Say what is missing, the plan and its cost, and do nothing."""

    redo_changed: bool = False
    """Do steps again that were done with other options or from other files, in place of refusing
    to mix them. A training asks for --training.overwrite true besides, behind the --."""


@dataclass(frozen=True)
class Reproduction:
    """All that one command is going to do.

    Attributes:
        title: for people.
        output: folder of everything.
        steps: in order.
        missing: a line about each file or package that the user has to bring.
        open_options: values that the training's recipe leaves to the user.
        num_questions: whose candidates are reranked, so far as that is known beforehand; None for a
            collection of the user's own.
        depth: candidates of a question that are reranked.
    """

    title: str
    output: Path
    steps: list[Step]
    missing: list[str]
    open_options: list[OpenOption]
    num_questions: int | None
    depth: int


def find_model(name: str, known: Sequence[str], *, paper: str) -> str:
    """Our name of a model; hub ids and capitals are understood.

    Raises:
        InputError: no such row; the nearest is named.
    """
    short = name.rsplit("/", maxsplit=1)[-1].lower()
    if short in known:
        return short
    nearest = difflib.get_close_matches(short, known, n=1, cutoff=0.5)
    advice = f"did you mean {nearest[0]!r}? " if nearest else ""
    raise InputError(
        f"model: {name!r} is none of {paper}; {advice}known: {', '.join(sorted(known))}"
    )


def config_layers(paper: str, recipe: str, model: str) -> tuple[Path, ...]:
    """The configs of a model, later ones win, from whichever folder the command is called."""
    return tuple(ROOT / path for path in recipe_layers(paper, recipe, model))


def check_sets(sets: Sequence[str], known: Sequence[str] | None) -> None:
    """Refuse no set, one twice, or one that is none of `known`.

    Raises:
        InputError: naming it.
    """
    if not sets:
        raise InputError("sets: none given; name at least one")
    for name in sets:
        if sets.count(name) > 1:
            raise InputError(f"sets: {name} is given twice; name each once")
        if known is not None and name not in known:
            raise InputError(f"sets: {name!r} is unknown; known: {', '.join(known)}")


def make_first_stage(
    options: CommonOptions,
    name: FirstStageName,
    folder: Path,
    *,
    data: Path,
    parameters: tuple[float, float],
    index: str | None = None,
) -> FirstStage:
    """The first stage by name; its files lie in a folder of that name.

    Raises:
        InputError: runs of one's own without saying where, or the other way round.
    """
    if (name == "own") != (options.runs is not None):
        raise InputError(
            f"first_stage, runs: got {name}, {options.runs}; --runs DIR goes with "
            "--first_stage own, and needs it"
        )
    if index is not None and name != "lucene":
        raise InputError(f"index: got {index}; it goes with --first_stage lucene, not {name}")
    if name == "official" and options.collection is not None:
        raise InputError("first_stage: got official; with --collection, lucene, bm25 or own fit")
    return FirstStage(
        name=name,
        folder=folder / name,
        brought=options.runs or data,
        k1=parameters[0],
        b=parameters[1],
        depth=options.depth,
        index=index,
    )


def missing_of_first_stage(first: FirstStage, splits: Sequence[str]) -> Iterator[str]:
    """A line about each run or package that the first stage lacks."""
    if first.is_brought:
        yield from missing_files([first.file(split) for split in splits], first.brought)
    if first.name == "lucene" and not (find_spec("pyserini") and find_spec("jnius")):
        yield "the package pyserini, for Lucene: bash scripts/setup.sh pyserini"


def missing_of_collection(source: Source, splits: Sequence[str]) -> Iterator[str]:
    """A line about each file that a user's own collection lacks."""
    folder = source.collection
    if find_documents(folder) is None:
        packed = find_file(folder, CORPUS_FILE)
        mend = f"gunzip {packed.name} or import the folder, " if packed else ""
        yield f"{folder / CORPUS_FILE}: of your own collection; {mend}see docs/collections.md"
    if find_queries(folder) is None:
        yield f"{folder / QUERIES_FILE}: of your own collection, see docs/collections.md"
    for split in splits:
        if not source.qrels(split).exists():
            yield f"{source.qrels(split)}: judgements of {split} in your own collection"


def reranking(options: CommonOptions, *more: str) -> Reranking:
    """How candidates are scored."""
    return Reranking(
        depth=options.depth, options=more, dtype=options.dtype, batch_size=options.batch_size
    )
