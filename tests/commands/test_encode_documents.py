"""jaxrank.encode_documents from a collection to a folder of states, and jaxrank.rerank from it."""

import json
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from jax.experimental.compilation_cache.compilation_cache import reset_cache

from jaxrank import encode_documents, rerank
from jaxrank.data.hashing import hash_text
from jaxrank.errors import InputError
from jaxrank.evaluation.runs import Run, ranking, read_run
from jaxrank.ranking.document_states.disk.store import StateStore
from jaxrank.ranking.document_states.encoding import DocumentEncoder
from jaxrank.ranking.document_states.records import Gathered
from jaxrank.ranking.document_states.scoring import StateScorer
from jaxrank.state_building import estimate
from tests.tiny_states import DOCUMENTS, RUN, TEXT, save_model, write_collection, write_run


@pytest.fixture(scope="module", autouse=True)
def compilation_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Compile what all calls share once, as the commands do."""
    options = {
        "jax_compilation_cache_dir": str(tmp_path_factory.mktemp("xla")),
        "jax_persistent_cache_min_compile_time_secs": 0.0,
        "jax_enable_compilation_cache": True,
    }
    before = {name: getattr(jax.config, name) for name in options}
    for name, value in options.items():
        jax.config.update(name, value)
    reset_cache()
    yield
    for name, value in before.items():
        jax.config.update(name, value)
    reset_cache()


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A collection, a run, a tiny Mamba, its plain scores, and states of all documents."""
    folder = tmp_path_factory.mktemp("states")
    write_collection(folder)
    save_model(folder / "model")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        rerank_run("--output", "plain.run")
        encode("--dtype", "float32")
    return folder


@pytest.fixture
def folder(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory, with a copy of all that was made."""
    shutil.copytree(made, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def encode(*more: str) -> None:
    given = ["--model", "model", "--collection", "c", "--output", "S", "--batch_size", "8"]
    encode_documents.main([*given, *more])


def care(action: str, *more: str) -> None:
    encode_documents.main([action, "--output", "S", *more])


def rerank_run(*more: str) -> Run:
    arguments = ["--model", "model", "--collection", "c", "--run", "in.run", "--output", "out.run"]
    rerank.main([*arguments, "--batch_size", "8", *more])
    return read_run(Path(more[more.index("--output") + 1] if "--output" in more else "out.run"))


def assert_same(run: Run, other: Run) -> None:
    """The same ranking of the same documents, with the same scores up to 1e-4."""
    assert run.keys() == other.keys()
    for query, scores in other.items():
        assert ranking(run[query]) == ranking(scores)
        np.testing.assert_allclose(
            [run[query][name] for name in scores], list(scores.values()), rtol=0, atol=1e-4
        )
        assert np.std(list(scores.values())) > 1e-2, "scores that differ, so that an order is one"


def test_a_run_from_states_is_that_of_the_texts(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("a document was read again")

    monkeypatch.setattr(DocumentEncoder, "encode", refuse)
    assert_same(rerank_run("--document-states", "S"), read_run("plain.run"))
    said = capsys.readouterr().out
    assert "states of S: float32, computed in float32; queries in float32\n" in said
    assert "3 queries tokenised: 0 cut (0 tokens lost), 0 empty" in said
    assert "not in S" not in said


def test_documents_without_states_are_read_and_counted(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("ids.txt").write_text("d3\nd7\nd4\nd9\n")
    care("delete", "--documents", "ids.txt")
    assert "4 documents deleted; S holds 6, " in capsys.readouterr().out
    assert_same(rerank_run("--document_states", "S"), read_run("plain.run"))
    said = capsys.readouterr().out
    command = "python -m jaxrank.encode_documents --model model --collection c --output S --runs in"
    assert f"4 of 10 documents are not in S and are read now; add them: {command}" in said
    assert "4 documents tokenised: 2 cut (" in said
    # Without memory for them, those that two queries share are read for each.
    assert_same(
        rerank_run("--document_states", "S", "--states_memory_gb", "0"), read_run("plain.run")
    )
    shared = sum(name in RUN[query] for query in RUN for name in ("d3", "d7", "d4", "d9")) - 4
    said = capsys.readouterr().out
    assert f"\n{shared} documents were read again for want of --states_memory_gb\n" in said


def test_the_command_that_is_named_adds_them(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.rmtree("S")
    write_run(Path("few.run"), {"q0": {"d1": 2.0, "d2": 1.0}})
    encode("--runs", "few.run", "--dtype", "float32")
    assert "S holds 2 documents" in capsys.readouterr().out
    rerank_run("--document_states", "S", "--depth", "5")
    words = capsys.readouterr().out.split("add them: python -m jaxrank.encode_documents ")[1]
    encode_documents.main(words.splitlines()[0].split())
    said = capsys.readouterr().out
    assert "2 of 10 documents are in S already\n8 documents to read, " in said
    assert set(StateStore.open("S").document_ids) == set(DOCUMENTS)


def test_encoding_says_what_it_takes_and_goes_on_with_what_is_there(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = snapshot(folder / "S")
    encode("--dtype", "float32")
    each = StateStore.open("S").nbytes // len(DOCUMENTS)
    size = f"{10 * each / 1000:,.1f} kB"
    assert capsys.readouterr().out == (
        f"10 of 10 documents are in S already\nS holds 10 documents, {size}\n"
    )
    assert snapshot(folder / "S") == whole
    monkeypatch.setattr(estimate, "_PARTS", 2)
    shutil.rmtree("S")
    Path("ids.txt").write_text("d3\n\nd1\nd3\n")
    encoders: list[DocumentEncoder] = []
    make = DocumentEncoder.__init__

    def counted(self: DocumentEncoder, *arguments: Any, **options: Any) -> None:
        encoders.append(self)
        make(self, *arguments, **options)

    monkeypatch.setattr(DocumentEncoder, "__init__", counted)
    encode("--documents", "ids.txt", "--dtype", "bf16")
    assert len(encoders) == 1, "what the sample has compiled, the work uses"
    first, second, third, fourth, fifth = capsys.readouterr().out.splitlines()
    half = StateStore.open("S").nbytes // 2
    assert first == "1 ids came again in ids.txt and count once"
    assert second.startswith(f"2 documents to read, {half:,} bytes each: {half / 500:.1f} kB; esti")
    assert second.endswith(" documents/s")
    assert third.startswith("2 documents in ")
    assert fourth == "2 documents tokenised: 0 cut (0 tokens lost), 0 empty"
    assert fifth == f"S holds 2 documents, {half / 500:.1f} kB"
    assert list(StateStore.open("S").document_ids) == ["d3", "d1"]


def test_verify_finds_a_flipped_bit_and_rerank_does_not_score_from_it(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    care("verify")
    assert "S: 10 documents, " in capsys.readouterr().out
    (shard,) = Path("S").glob("shard-*")
    content = bytearray(shard.read_bytes())
    content[-40] ^= 1
    shard.write_bytes(content)
    with pytest.raises(InputError, match=r"^S: 1 fault; take out what .* mend --output S\)"):
        care("verify")
    (fault,) = capsys.readouterr().out.splitlines()
    assert fault.startswith(f"{shard}: document 'd")
    with pytest.raises(InputError, match=str(shard)):
        rerank_run("--document_states", "S")
    assert not Path("out.run").exists()
    rerank_run("--document_states", "S", "--verify_states", "false")
    # The mend that was named.
    care("mend")
    first, second, third = capsys.readouterr().out.splitlines()[-3:]
    assert first == fault
    assert second.startswith("taken out: 0 documents of lost files, 1 damaged ones; S holds 9, ")
    assert third == "encode again what was taken out"
    encode("--dtype", "float32")
    care("verify")


def test_files_that_are_lost_are_taken_out_when_asked_to(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (shard,) = Path("S").glob("shard-*")
    shard.unlink()
    with pytest.raises(InputError, match=r"^S: 1 fault; take out what .* mend --output S\)"):
        care("verify")
    with pytest.raises(InputError, match=r"1 of 1 shards are missing.* mend --output S\)"):
        encode("--dtype", "float32")
    capsys.readouterr()
    care("describe")
    assert capsys.readouterr().out.startswith("S: 10 documents, ")
    care("mend")
    assert capsys.readouterr().out == (
        "taken out: 10 documents of lost files, 0 damaged ones; S holds 0, 0 bytes\n"
        "encode again what was taken out\n"
    )
    care("verify")


def test_a_text_that_is_not_that_of_its_state_is_refused(folder: Path) -> None:
    edited = {**DOCUMENTS, "d7": f"{DOCUMENTS['d7']} burn"}
    write_collection(folder, edited)
    before = snapshot(folder)
    changed = "^S: document 'd7': its text is not the one that its state was made of; give the"
    with pytest.raises(InputError, match=changed):
        rerank_run("--document_states", "S")
    with pytest.raises(InputError, match=changed):
        encode("--dtype", "float32")
    assert snapshot(folder) == before
    # The mend that is named.
    Path("ids.txt").write_text("d7\n")
    care("delete", "--documents", "ids.txt")
    encode("--dtype", "float32")
    assert StateStore.open("S").text_hashes(["d7"]).tolist() == [hash_text(edited["d7"])]


def test_another_choice_of_fields_is_refused(folder: Path) -> None:
    lines = [
        json.dumps({"_id": name, "title": "about", "text": text})
        for name, text in DOCUMENTS.items()
    ]
    Path("c/corpus.jsonl").write_text("\n".join(lines))
    # What the states were made of is the body of what now has titles too.
    rerank_run("--document_states", "S", "--document_text", "body")
    with pytest.raises(
        InputError, match=r"^S: document 'd\d': its .* \(the same holds of 9 more\);"
    ):
        rerank_run("--document_states", "S")


def test_documents_that_are_read_in_another_precision_are_told_before_the_work(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    Path("ids.txt").write_text("d3\n")
    care("delete", "--documents", "ids.txt")
    capsys.readouterr()

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(StateScorer, "score", stop)
    for dtype, precision in (
        ("float32", ""),
        (
            "bfloat16",
            ", computed in bfloat16 beside states in float32 (--dtype float32 computes al",
        ),
    ):
        with pytest.raises(KeyboardInterrupt):
            rerank_run("--document_states", "S", "--dtype", dtype)
        said = capsys.readouterr().out
        assert f"1 of 10 documents are not in S and are read now{precision}" in said
        assert (", computed in bfloat16 beside" in said) == bool(precision)


def test_candidates_that_are_scored_together_are_bounded_by_batch_size(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows: list[int] = []
    gather = StateStore.gather

    def counted(self: StateStore, *arguments: Any, **sizes: Any) -> Gathered:
        gathered = gather(self, *arguments, **sizes)
        rows.append(len(gathered.lengths))
        return gathered

    monkeypatch.setattr("jaxrank.ranking.document_states.states.DocumentStates.gather", counted)
    rerank_run("--document_states", "S", "--batch_size", "4")
    assert max(rows) == 4


def test_describe_says_what_is_there(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    care("describe")
    said = capsys.readouterr().out
    assert said.startswith("S: 10 documents, ")
    assert "kept in: float32, computed in float32\n" in said
    assert "template: paper-decoder, at most 32 tokens of a document\n" in said
    assert "array: recurrence (1, 64, 16)\n" in said
    assert f"weights {StateStore.open('S').identity.weights}\n" in said


@pytest.mark.slow
def test_smaller_states_score_nearly_the_same(folder: Path) -> None:
    shutil.rmtree("S")
    encode("--dtype", "int8")
    run, plain = rerank_run("--document_states", "S"), read_run("plain.run")
    spread = np.std([score for scores in plain.values() for score in scores.values()])
    differences = [
        abs(run[q][d] - score) for q, scores in plain.items() for d, score in scores.items()
    ]
    assert 0 < max(differences) < 0.05 * spread


def snapshot(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_states_of_another_model_or_budget_are_refused(folder: Path) -> None:
    save_model(folder / "other", seed=1)
    before = snapshot(folder)
    longer = ["--max_length", str(TEXT.max_length + 1)]
    said = "^S: its states were made for "
    with pytest.raises(InputError, match=f"{said}.*weights .*, the model has "):
        rerank_run("--document_states", "S", "--model", "other")
    with pytest.raises(InputError, match=f"{said}.*document budget 32 tokens, the model has 33"):
        encode("--dtype", "float32", *longer)
    with pytest.raises(InputError, match=r"^S: holds states in float32 .* not int8"):
        encode("--dtype", "int8")
    assert snapshot(folder) == before


def test_states_that_do_not_fit_on_the_disk_are_refused_before_any_work(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.rmtree("S")
    usage = shutil.disk_usage(folder)._replace(free=5000)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    monkeypatch.setattr(DocumentEncoder, "encode", lambda *_: pytest.fail("encoded"))
    message = r"^S: the states of 10 documents take .* kB, and its disk has 5.0 kB free; make room"
    with pytest.raises(InputError, match=message):
        encode("--dtype", "float32")
    assert not Path("S").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--documents", "ids.txt"], r"ids.txt:2: document 'd99' is not in c; an id of it"),
        (["--documents", "empty"], "empty: no ids; one a line is needed"),
        (["--runs", "bad.run"], "bad.run: query 'q0' has document 'd99', which c lacks"),
        (
            ["--output", "full"],
            "full/ids.txt: does not belong to a (new )?store of document states",
        ),
    ],
)
def test_what_cannot_be_encoded_is_refused_in_one_line(
    folder: Path, arguments: Sequence[str], message: str
) -> None:
    (folder / "full").mkdir()
    for name in ("ids.txt", "full/ids.txt"):
        (folder / name).write_text("d1\nd99\n")
    (folder / "empty").write_text("\n")
    write_run(folder / "bad.run", {"q0": {"d99": 1.0}})
    with pytest.raises(InputError, match=f"^{message}") as error:
        encode(*arguments)
    assert "\n" not in str(error.value)
