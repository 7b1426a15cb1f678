"""MS MARCO documents in miniature: medquad-mini in exactly the official files' formats, and names.

Documents get numbers, urls and titles; the questions are dealt out to train, dev and two DL sets,
whose judgements are graded: 3 for the answer, 2 for a passage of the same article, and 1 or 0 for
what BM25 finds besides.
"""

import gzip
import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ckpt_convert.save import save
from jaxrank.files import read_lines
from jaxrank.models.families import get_family
from jaxrank.models.module import RerankerConfig, parameter_shapes
from jaxrank.retrieval.bm25 import Bm25
from jaxrank.text.templates import TextConfig
from jaxrank.text.tokenize import load_tokenizer

ROOT = Path(__file__).resolve().parents[2]
SOURCE = ROOT / "examples" / "medquad-mini"
TOKENIZERS = ROOT / "tests" / "data" / "tokenizers"

# Set -> the split its questions come from, how many, and the official names' middle.
SETS = {
    "train": ("train", 12, "doctrain"),
    "dev": ("dev", 5, "docdev"),
    "dl19": ("test", 3, "test2019"),
    "dl20": ("test", 3, "test2020"),
}
NUM_OTHERS = 40
DEPTH = 12
TITLE_WORDS = 6
# As the topics of the DL tracks have it: more questions than were judged.
NUM_UNJUDGED = 2


@dataclass(frozen=True)
class Question:
    """A question with the documents that answer it."""

    number: str
    text: str
    answers: tuple[str, ...]


def write_miniature(folder: Path) -> Path:
    """Write the official files that reproducing RankMamba needs, and the official runs."""
    folder.mkdir(parents=True)
    passages = _read("corpus.jsonl")
    questions = _deal_questions()
    wanted = {answer for dealt in questions.values() for q in dealt for answer in q.answers}
    others = [name for name in passages if name not in wanted][:NUM_OTHERS]
    names = [name for name in passages if name in wanted or name in others]
    numbers = {name: f"D{1000 + 7 * index}" for index, name in enumerate(names)}
    rows = [_document(numbers[name], passages[name]) for name in names]
    _write(folder / "msmarco-docs.tsv.gz", ("\t".join(row) for row in rows))
    index = Bm25.build({row[0]: " ".join(row[1:]) for row in rows}, k1=4.46, b=0.82)
    for set_name, (_, _, middle) in SETS.items():
        asked = questions[set_name]
        found = dict(index.results({q.number: q.text for q in asked}, depth=DEPTH))
        is_track = set_name.startswith("dl")
        judged = asked[:-NUM_UNJUDGED] if is_track else asked
        lines = [f"{q.number}\t{q.text}" for q in asked]
        _write(folder / f"msmarco-{middle}-queries.tsv.gz", lines)
        if is_track:
            qrels = [line for q in judged for line in _graded(q, numbers, found[q.number])]
            _write(folder / f"20{set_name[-2:]}qrels-docs.txt", qrels)
        else:
            qrels = [f"{q.number} 0 {numbers[name]} 1" for q in judged for name in q.answers]
            _write(folder / f"msmarco-{middle}-qrels.tsv.gz", qrels)
        run = f"msmarco-{middle.replace('test', 'doctest')}-top100.gz"
        _write(folder / run, _run_lines(found))
    return folder


def write_model(folder: Path, family: str) -> Path:
    """A tiny model with the family's real tokenizer, which stands for a published checkpoint."""
    preset, tokenizer, template = {
        "bert": ("bert-tiny", "bert-base-uncased", "paper-encoder"),
        "mamba": ("mamba-tiny", "gpt-neox-20b", "paper-decoder"),
    }[family]
    config = RerankerConfig(family, get_family(family).presets[preset], "linear")
    random = np.random.default_rng(0)
    values = {
        path: _start(random, path, spec.shape) for path, spec in parameter_shapes(config).items()
    }
    return save(
        folder,
        config=config,
        parameters=values,
        tokenizer=load_tokenizer(TOKENIZERS / tokenizer),
        text=TextConfig(template, max_length=64),
    )


def _start(random: np.random.Generator, path: str, shape: tuple[int, ...]) -> np.ndarray:
    if path.endswith("A_log"):  # the state decays
        return np.zeros(shape, np.float32)
    return random.normal("norm" in path, 0.1, shape).astype(np.float32)


def _read(name: str) -> dict[str, str]:
    lines = (SOURCE / name).read_text(encoding="utf-8").splitlines()
    return {entry["_id"]: entry["text"] for entry in map(json.loads, lines)}


def _deal_questions() -> dict[str, list[Question]]:
    """Questions with distinct documents, none of them in two sets."""
    texts = _read("queries.jsonl")
    dealt: dict[str, list[Question]] = {}
    pools: dict[str, Iterator[Question]] = {}
    for set_name, (split, count, _) in SETS.items():
        if split not in pools:
            answers: dict[str, list[str]] = {}
            for line in (SOURCE / f"qrels.{split}.txt").read_text(encoding="utf-8").splitlines():
                query, _, document, _ = line.split()
                answers.setdefault(query, []).append(document)
            pools[split] = iter([
                Question(query.removeprefix("mq").lstrip("0"), texts[query], tuple(names))
                for query, names in answers.items()
            ])  # fmt: skip
        dealt[set_name] = [next(pools[split]) for _ in range(count + _unjudged(set_name))]
    return dealt


def _unjudged(set_name: str) -> int:
    return NUM_UNJUDGED if set_name.startswith("dl") else 0


def _document(number: str, text: str) -> tuple[str, str, str, str]:
    words = text.split()
    title = " ".join(words[:TITLE_WORDS])
    return number, f"http://health.example.org/{number.lower()}", title, " ".join(words)


def _graded(question: Question, numbers: dict[str, str], found: dict[str, float]) -> list[str]:
    """Judgements as NIST writes them."""
    articles = {name.rpartition("-")[0] for name in question.answers}
    grades = {number: rank % 2 for rank, number in enumerate(found)}
    grades |= {number: 2 for name, number in numbers.items() if name.rpartition("-")[0] in articles}
    grades |= {numbers[name]: 3 for name in question.answers}
    return [f"{question.number} 0 {number} {grade}" for number, grade in grades.items()]


def _run_lines(found: dict[str, dict[str, float]]) -> Iterator[str]:
    for query, scores in found.items():
        for rank, (number, score) in enumerate(scores.items(), start=1):
            yield f"{query} Q0 {number} {rank} {score:.5f} IndriQueryLikelihood"


def _write(path: Path, lines: Iterable[str]) -> None:
    opener: Callable[..., gzip.GzipFile] = gzip.open if path.suffix == ".gz" else open
    with opener(path, "wt", encoding="utf-8", newline="\n") as file:
        file.writelines(f"{line}\n" for line in lines)


def as_passages(documents: Path, folder: Path) -> Path:
    """The same texts and questions under the names and formats of the passage task."""
    folder.mkdir(parents=True)
    rows = [line.split("\t") for line in _lines(documents / "msmarco-docs.tsv.gz")]
    _write(folder / "collection.tsv", (f"{row[0]}\t{row[3]}" for row in rows))
    for ours, theirs in (("doctrain", "train"), ("docdev", "dev.small")):
        queries = _lines(documents / f"msmarco-{ours}-queries.tsv.gz")
        _write(folder / f"queries.{theirs}.tsv", queries)
        qrels = _lines(documents / f"msmarco-{ours}-qrels.tsv.gz")
        _write(folder / f"qrels.{theirs}.tsv", (line.replace(" ", "\t") for line in qrels))
    for year in ("2019", "2020"):
        name = f"msmarco-test{year}-queries.tsv.gz"
        _write(folder / name, _lines(documents / name))
        _write(folder / f"{year}qrels-pass.txt", _lines(documents / f"{year}qrels-docs.txt"))
    return folder


def as_beir(documents: Path, folder: Path) -> Path:
    """The same texts, with the questions of dev, as an unpacked BEIR archive."""
    (folder / "qrels").mkdir(parents=True)
    rows = [line.split("\t") for line in _lines(documents / "msmarco-docs.tsv.gz")]
    corpus = [{"_id": row[0], "title": row[2], "text": row[3], "metadata": {}} for row in rows]
    _write(folder / "corpus.jsonl", map(json.dumps, corpus))
    asked = [line.split("\t") for line in _lines(documents / "msmarco-docdev-queries.tsv.gz")]
    queries = [{"_id": number, "text": text, "metadata": {}} for number, text in asked]
    _write(folder / "queries.jsonl", map(json.dumps, queries))
    judged = [line.split() for line in _lines(documents / "msmarco-docdev-qrels.tsv.gz")]
    lines = ["query-id\tcorpus-id\tscore", *(f"{row[0]}\t{row[2]}\t{row[3]}" for row in judged)]
    _write(folder / "qrels" / "test.tsv", lines)
    return folder


def _lines(path: Path) -> list[str]:
    return [line for _, line in read_lines(path)]
