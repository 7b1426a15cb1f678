"""Join MedQuAD's passages into the articles they were cut from: a collection of long documents.

    python scripts/medquad_articles.py data/medquad data/medquad-articles

Passages of one article share their id up to the last `-` and stand together in the corpus; an
article's text is theirs in that order, with a blank between. An article is relevant to a question
if one of its passages is. `positions.SPLIT.tsv` says where: question id, tab, the number of words
in front of its relevant passage in the article; of several relevant passages, the least.
"""

import argparse
import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np

from jaxrank.command_line import run
from jaxrank.data.collection import Collection, queries_path
from jaxrank.errors import InputError
from jaxrank.evaluation.qrels import Qrels
from jaxrank.files import atomic_folder, check_target


class Place(NamedTuple):
    """Where a passage is."""

    article_id: str
    words_before: int


def main() -> None:
    """Read the passages, write the articles, say how many."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("collection", type=Path, help="collection folder of passages")
    parser.add_argument("output", type=Path, help="collection folder to write")
    options = parser.parse_args()
    check_target(options.output, is_folder=True)
    passages = Collection.open(options.collection, progress=True)
    with atomic_folder(options.output) as folder:
        places, lengths = join_passages(passages, folder / "corpus.jsonl")
        queries = queries_path(passages.folder)
        shutil.copyfile(queries, folder / queries.name)
        for split in passages.splits:
            qrels, positions = judge_articles(passages.qrels(split), places)
            lines = [f"{q} 0 {d} {grade}" for q in qrels for d, grade in qrels[q].items()]
            write_lines(folder / f"qrels.{split}.txt", lines)
            write_lines(folder / f"positions.{split}.tsv", [f"{q}\t{n}" for q, n in positions])
            print(f"{split}: {len(qrels):,} questions, {len(lines):,} judgements of articles")
    print(
        f"{len(places):,} passages in {len(lengths):,} articles of {np.mean(lengths):.0f} words "
        f"in the mean, {np.percentile(lengths, 90):.0f} at the 90th and "
        f"{np.percentile(lengths, 99):.0f} at the 99th percentile, {max(lengths):,} at most"
    )
    print(f"wrote {options.output}")


def article_of(passage_id: str) -> str:
    """Id of the article that a passage was cut from."""
    return passage_id.rpartition("-")[0] or passage_id


def join_passages(passages: Collection, path: Path) -> tuple[dict[str, Place], list[int]]:
    """Write the articles, and say where each passage is and how many words each article has.

    Raises:
        InputError: a passage whose article was complete before.
    """
    places: dict[str, Place] = {}
    lengths: dict[str, int] = {}
    texts: list[str] = []
    with open(path, "w", encoding="utf-8") as file:

        def finish() -> None:
            article = {"_id": next(reversed(lengths)), "title": "", "text": " ".join(texts)}
            file.write(json.dumps(article, ensure_ascii=False) + "\n")
            texts.clear()

        for passage_id, text in passages.documents.items():
            article_id = article_of(passage_id)
            if texts and article_id != next(reversed(lengths)):
                finish()
            if not texts and article_id in lengths:
                raise InputError(
                    f"{passages.folder}: passage {passage_id!r} stands apart from the others of "
                    "its article; passages of one article must follow one another"
                )
            places[passage_id] = Place(article_id, lengths.get(article_id, 0))
            lengths[article_id] = lengths.get(article_id, 0) + len(text.split())
            texts.append(text)
        finish()
    return places, list(lengths.values())


def judge_articles(
    qrels: Qrels, places: Mapping[str, Place]
) -> tuple[Qrels, list[tuple[str, int]]]:
    """The articles' judgements, and the words before the first relevant passage of each question.

    An article has the best grade of its passages. Questions without a relevant one have no place.

    Raises:
        InputError: a judged passage that is not in the collection.
    """
    judged: Qrels = {}
    positions = []
    for query_id, grades in qrels.items():
        articles = judged.setdefault(query_id, {})
        before = []
        for passage_id, grade in grades.items():
            if passage_id not in places:
                raise InputError(
                    f"qrels: query {query_id!r}: passage {passage_id!r} is not in the collection"
                )
            place = places[passage_id]
            articles[place.article_id] = max(grade, articles.get(place.article_id, grade))
            if grade > 0:
                before.append(place.words_before)
        if before:
            positions.append((query_id, min(before)))
    return judged, positions


def write_lines(path: Path, lines: list[str]) -> None:
    """Write lines of text into a folder that appears as a whole."""
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")


if __name__ == "__main__":
    run(main)
