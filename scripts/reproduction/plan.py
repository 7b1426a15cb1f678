"""The steps that every reproduction is made of: collection, candidates, groups, model, measures.

Below the output folder:

    collection/                    the documents, questions and judgements, imported once
    beir/collections/SET/          the same of each BEIR set
    FIRST_STAGE/lucene.SPLIT.run   candidates, and groups*.jsonl mined from them
    FIRST_STAGE/RECIPE/MODEL/      run folder: model/, runs/MODEL.SET.run, evaluation/SET.json
    FIRST_STAGE/RECIPE/table.md    the results of all models so far
    tokens/                        tokenised texts, by tokenizer
    steps/                         records of what is done
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from jaxrank.data.collection import (
    DOCUMENTS_FOLDER,
    QUERIES_FILE,
    find_documents,
    find_qrels,
)
from jaxrank.data.document_text import DocumentText
from scripts.reproduction.fingerprints import SplitQueries
from scripts.reproduction.official_files import OfficialFile, official_run
from scripts.reproduction.steps import Step, arguments, option

FirstStageName = Literal["lucene", "bm25", "official", "own"]


@dataclass(frozen=True)
class Source:
    """A collection folder and which fields of its documents are read."""

    collection: Path
    document_text: DocumentText | None

    @property
    def documents(self) -> Path:
        """The documents alone, which stay the same when more splits are imported."""
        return find_documents(self.collection) or self.collection / DOCUMENTS_FOLDER

    def qrels(self, split: str) -> Path:
        """A split's judgements; where there are none, the file that an import is to write."""
        return find_qrels(self.collection, split) or self.collection / f"qrels.{split}.txt"

    def queries(self, split: str) -> SplitQueries:
        """A split's questions."""
        return SplitQueries(self.collection, self.qrels(split))

    def options(self) -> Sequence[object]:
        """As the commands take it."""
        return ("--collection", self.collection, *option("--document_text", self.document_text))


@dataclass(frozen=True)
class FirstStage:
    """What finds the candidates, and where they are.

    Attributes:
        folder: where runs are written.
        brought: where the user's runs are: the official ones, or SPLIT.run of their own.
        depth: candidates of a question.
        index: a Lucene index of the user's, or a prebuilt one's name; None: one is built.
    """

    name: FirstStageName
    folder: Path
    brought: Path
    k1: float
    b: float
    depth: int
    index: str | None = None

    @property
    def is_brought(self) -> bool:
        """Whether the runs are the user's, so that nothing is searched."""
        return self.name in ("official", "own")

    def file(self, split: str) -> OfficialFile:
        """The run that the user brings for a split."""
        if self.name == "official":
            return official_run(split)
        return OfficialFile(f"{split}.run", "a run of your own (--runs)", "TREC format")

    def run(self, split: str) -> Path:
        """The run with a split's candidates."""
        if self.is_brought:
            return self.file(split).find(self.brought) or self.brought / self.file(split).name
        return self.folder / f"{self.name}.{split}.run"


def import_step(
    data: Path, source: Source, layout: str, *, name: str, files: tuple[Path, ...]
) -> Step:
    """Official files to a collection folder; `files` are those that are there."""
    return Step(
        name=name,
        about="documents, questions and judgements from the official files, into one folder",
        module="jaxrank.import_collection",
        arguments=arguments("--source", data, "--output", source.collection, "--layout", layout),
        inputs=files,
        outputs=(source.documents, source.collection / QUERIES_FILE),
        checks_itself=True,
    )


def search_step(source: Source, first: FirstStage, split: str, *, name: str | None = None) -> Step:
    """Candidates of a split's questions."""
    index = first.index or first.folder / "index" if first.name == "lucene" else None
    return Step(
        name=name or f"{first.name}/search-{split}",
        about=f"the best {first.depth} documents for each question of {split}",
        module="jaxrank.search",
        arguments=arguments(
            *source.options(), "--split", split, "--output", first.run(split),
            "--backend", first.name, "--k1", first.k1, "--b", first.b, "--depth", first.depth,
            *option("--index", index),
        ),
        inputs=(source.documents, source.queries(split)),
        outputs=(first.run(split),),
    )  # fmt: skip


def mine_step(
    source: Source, run: Path, output: Path, *, name: str, negatives: int, groups_per_positive: int
) -> Step:
    """Training groups: judged documents, each with negatives from a run's top 100."""
    return Step(
        name=name,
        about=f"{groups_per_positive} x {negatives} negatives for each judged document",
        module="jaxrank.mine",
        arguments=arguments(
            *source.options(), "--split", "train", "--run", run, "--output", output,
            "--negatives", negatives, "--groups_per_positive", groups_per_positive,
            "--first_rank", 1, "--last_rank", 100, "--seed", 0,
        ),
        inputs=(source.documents, source.qrels("train"), run),
        outputs=(output,),
    )  # fmt: skip
