import gzip
import sys
from pathlib import Path

import pytest

from jaxrank import import_collection, mine, search
from jaxrank.command_line import run
from jaxrank.data.collection import Collection
from jaxrank.data.groups import read_groups


@pytest.fixture(scope="module")
def dev_run(medquad_mini: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("search") / "bm25.dev.run"
    search.main(["--collection", str(medquad_mini), "--split", "dev", "--output", str(path)])
    return path


def arguments(collection: Path, dev_run: Path, output: Path) -> list[str]:
    return [
        "--collection", str(collection), "--split", "dev", "--run", str(dev_run),
        "--output", str(output),
    ]  # fmt: skip


def test_mine_writes_groups_that_training_can_read(
    medquad_mini: Path, dev_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "groups.jsonl"
    mine.main([*arguments(medquad_mini, dev_run, output), "--groups_per_positive", "2"])
    collection = Collection.open(medquad_mini)
    groups = read_groups(
        output, min_negatives=7, queries=collection.queries, documents=collection.documents
    )
    qrels = collection.qrels("dev")
    assert len(groups) == 2 * sum(map(len, qrels.values()))
    assert {group.query_id for group in groups} == set(qrels)
    assert all(group.positive_id in qrels[group.query_id] for group in groups)
    assert not any(set(group.negative_ids) & set(qrels[group.query_id]) for group in groups)
    assert f"{len(groups)} groups of 281 queries" in capsys.readouterr().out


def test_options_come_from_a_file_and_the_same_seed_gives_the_same_bytes(
    medquad_mini: Path, dev_run: Path, tmp_path: Path
) -> None:
    config = tmp_path / "mine.yaml"
    config.write_text(
        f"collection: {medquad_mini}\nsplit: dev\nrun: {dev_run}\noutput: {tmp_path / 'a.jsonl'}\n"
        "negatives: 20\nlast_rank: 60\nseed: 5\n"
    )
    mine.main(["--config", str(config)])
    mine.main(["--config", str(config), "--output", str(tmp_path / "b.jsonl")])
    mine.main(["--config", str(config), "--output", str(tmp_path / "c.jsonl"), "--seed", "6"])
    a, b, c = (tmp_path.joinpath(f"{name}.jsonl").read_bytes() for name in "abc")
    assert a == b
    assert a != c
    assert len(read_groups(tmp_path / "a.jsonl")[0].negative_ids) == 20


def test_an_exclusion_list_is_kept_and_counted(
    medquad_mini: Path, dev_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "groups.jsonl"
    mine.main([*arguments(medquad_mini, dev_run, output)])
    pair = read_groups(output)[0]
    exclude = tmp_path / "exclude.tsv"
    exclude.write_text("".join(f"{pair.query_id}\t{d}\n" for d in pair.negative_ids))
    capsys.readouterr()
    mine.main([*arguments(medquad_mini, dev_run, output), "--exclude", str(exclude)])
    first = read_groups(output)[0]
    assert not set(first.negative_ids) & set(pair.negative_ids)
    assert "7 candidates are on the exclusion list" in capsys.readouterr().out


def test_a_gzip_run_gives_the_groups_of_the_plain_one(
    medquad_mini: Path, dev_run: Path, tmp_path: Path
) -> None:
    packed = tmp_path / "bm25.run.gz"
    packed.write_bytes(gzip.compress(dev_run.read_bytes()))
    for run_file, name in ((dev_run, "a"), (packed, "b")):
        mine.main([*arguments(medquad_mini, run_file, tmp_path / name)])
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_guards_leave_out_candidates_and_say_how_many(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "collection"
    folder.mkdir()
    texts = {"p": "relevant", "a": "relevant", "b": "close", "c": "far", "d": "far", "e": "farther"}
    (folder / "corpus.jsonl").write_text(
        "".join(f'{{"_id": "{name}", "text": "{text}"}}\n' for name, text in texts.items())
    )
    (folder / "queries.jsonl").write_text('{"_id": "q", "text": "?"}\n')
    (folder / "qrels.dev.txt").write_text("q 0 p 1\n")
    lines = [f"q Q0 {name} {rank} {10 - rank} t\n" for rank, name in enumerate("bpacde", start=1)]
    (tmp_path / "a.run").write_text("".join(lines))
    given = arguments(folder, tmp_path / "a.run", tmp_path / "groups.jsonl")
    guards = ["--score_margin", "0.5", "--drop_duplicates", "true", "--negatives", "2"]
    mine.main([*given, *guards])
    (group,) = read_groups(tmp_path / "groups.jsonl")
    assert set(group.negative_ids) == {"c", "e"}
    output = capsys.readouterr().out
    assert "1 candidates score above the margin" in output
    assert "1 candidates are duplicates of a relevant document, 1 of another candidate" in output


def test_an_imported_collection_has_its_duplicates_counted_and_kept(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = tmp_path / "source"
    (source / "qrels").mkdir(parents=True)
    texts = {"p": "relevant", "a": "relevant", "b": "far", "c": "far"}
    (source / "corpus.jsonl").write_text(
        "".join(f'{{"_id": "{name}", "text": "{text}"}}\n' for name, text in texts.items())
    )
    (source / "queries.jsonl").write_text('{"_id": "q", "text": "?"}\n')
    (source / "qrels" / "dev.tsv").write_text("query-id\tcorpus-id\tscore\nq\tp\t1\n")
    import_collection.main(["--source", str(source), "--output", str(tmp_path / "store")])
    run_file = tmp_path / "a.run"
    run_file.write_text("".join(f"q Q0 {name} 1 {ord(name)} t\n" for name in "abcp"))
    mine.main([*arguments(tmp_path / "store", run_file, tmp_path / "g"), "--negatives", "3"])
    (group,) = read_groups(tmp_path / "g")
    assert set(group.negative_ids) == {"a", "b", "c"}
    told = "1 candidates are duplicates of a relevant document, 1 of another candidate: kept"
    assert told in capsys.readouterr().out


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--negatives", "51"], "negatives: 51"),
        (["--negatvies", "5"], "did you mean 'negatives'?"),
        (["--split", "train"], "give the split that the run was made for"),
        (["--run", "absent.run"], "absent.run: no such file"),
        (["--exclude", "absent.tsv"], "absent.tsv: no such file"),
        (["--seed", "x"], "seed"),
        (["--score_margin", ".inf"], "score_margin: inf"),
    ],
)
def test_bad_input_gives_one_line_and_no_file(
    medquad_mini: Path,
    dev_run: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    options: list[str],
    words: str,
) -> None:
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", "")
    given = arguments(medquad_mini, dev_run, tmp_path / "groups.jsonl")
    monkeypatch.setattr(sys, "argv", ["mine", *given, *options])
    with pytest.raises(SystemExit) as exit_status:
        run(mine.main)
    assert exit_status.value.code == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert error.count("\n") == 1
    assert words in error
    assert not list(tmp_path.iterdir())
