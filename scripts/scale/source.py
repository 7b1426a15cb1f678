"""A source of any size in MS MARCO's own files: real words, real lengths of documents, seeded.

A document is a stretch of real articles' text, as long as one of them. It is written in one pass
and never held, so that a source may be larger than memory.
"""

import gzip
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Int64

from scripts.medquad_articles import article_of

RUN_DEPTH = 100
RUN_FILE = "msmarco-doctrain-top100"

_DOCUMENT_ID = "D%d"
_DOCUMENTS_A_TIME = 10_000
_TITLE_WORDS = 8
_QUERY_WORDS = 6


@dataclass(frozen=True)
class Articles:
    """All words of real articles in a row, and how many words each article has.

    Attributes:
        text: the words, with a blank after each.
        starts: byte at which each word starts, and the end of the text.
        lengths: of the articles, in words.
    """

    text: bytes
    starts: Int64[np.ndarray, " words_and_end"]
    lengths: Int64[np.ndarray, " articles"]

    def words(self, first: int, count: int) -> bytes:
        """`count` words from `first` on, with single blanks between them."""
        return self.text[self.starts[first] : self.starts[first + count] - 1]


def read_articles(folder: Path) -> Articles:
    """Join a collection's passages into articles: those whose ids agree up to their last `-`."""
    path = folder / "corpus.jsonl"
    if not path.exists():
        path = folder / "corpus.jsonl.gz"
    lengths: dict[str, int] = {}
    passages: list[bytes] = []
    with gzip.open(path, "rb") if path.suffix == ".gz" else open(path, "rb") as file:
        for line in file:
            passage = json.loads(line)
            words = passage["text"].encode().split()
            article = article_of(passage["_id"])
            lengths[article] = lengths.get(article, 0) + len(words)
            passages += [b" ".join(words) + b" "] if words else []
    text = b"".join(passages)
    blanks = np.flatnonzero(np.frombuffer(text, np.uint8) == ord(" "))
    kept = np.fromiter((n for n in lengths.values() if n), np.int64)
    return Articles(text, np.concatenate([[0], blanks + 1]), kept)


def document_id(number: int) -> str:
    """Id of the document with this number, from 0."""
    return _DOCUMENT_ID % number


def write_documents(folder: Path, articles: Articles, *, documents: int, seed: int) -> None:
    """Write msmarco-docs.tsv: id, url, title, body."""
    draw = np.random.default_rng([seed, 0])
    num_words = len(articles.starts) - 1
    with open(folder / "msmarco-docs.tsv", "wb") as file:
        for begin in range(0, documents, _DOCUMENTS_A_TIME):
            count = min(_DOCUMENTS_A_TIME, documents - begin)
            lengths = draw.choice(articles.lengths, count)
            firsts = draw.integers(0, num_words - lengths + 1)
            for number, first, length in zip(
                range(begin, begin + count), firsts.tolist(), lengths.tolist(), strict=True
            ):
                name = document_id(number).encode()
                title = articles.words(first, min(_TITLE_WORDS, length))
                body = articles.words(first, length)
                file.write(b"%b\thttps://example.org/%b\t%b\t%b\n" % (name, name, title, body))


def write_training_files(
    folder: Path, articles: Articles, *, documents: int, queries: int, seed: int
) -> None:
    """Write queries, one judgement for each, and a run of 100 lines with the judged document in it.

    A query's candidates are spread evenly over all documents, from a random one on.
    """
    if documents < RUN_DEPTH:
        raise ValueError(f"{documents} documents; a run of {RUN_DEPTH} a query needs as many")
    draw = np.random.default_rng([seed, 1])
    ranks = np.arange(RUN_DEPTH)
    # A query's lines at once, since a run of 100,000 queries has ten million.
    lines = "".join(
        f"<query> Q0 {_DOCUMENT_ID} {rank + 1} {RUN_DEPTH - rank} scale\n" for rank in ranks
    )
    with (
        open(folder / "msmarco-doctrain-queries.tsv", "wb") as texts,
        open(folder / "msmarco-doctrain-qrels.tsv", "w") as qrels,
        open(folder / RUN_FILE, "w") as run,
    ):
        for query in range(queries):
            first_word = int(draw.integers(0, len(articles.starts) - _QUERY_WORDS))
            texts.write(b"%d\t%b\n" % (query, articles.words(first_word, _QUERY_WORDS)))
            first, stride, positive = draw.integers(
                (0, 1, 0), (documents, documents // RUN_DEPTH + 1, RUN_DEPTH)
            )
            found = ((first + ranks * stride) % documents).tolist()
            qrels.write(f"{query} 0 {document_id(found[positive])} 1\n")
            run.write(lines.replace("<query>", str(query)) % tuple(found))


def write_part_of_run(folder: Path, name: str, *, queries: int) -> Path:
    """Copy the run's lines of the first `queries` queries."""
    path = folder / name
    with open(folder / RUN_FILE, "rb") as source, open(path, "wb") as target:
        for _ in range(queries * RUN_DEPTH):
            target.write(next(source))
    return path
