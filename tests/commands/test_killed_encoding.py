"""jaxrank.encode_documents killed again and again: the states are those of an undisturbed call."""

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from jaxrank.ranking.document_states.disk.store import StateStore
from jaxrank.ranking.document_states.disk.verification import find_faults
from jaxrank.reranker import Reranker
from tests.tiny_states import WORDS, save_model, write_collection

ROOT = Path(__file__).resolve().parents[2]
KILLS = 10
SHARDS = 120
PER_SHARD = 2
START_S = 300


def start(folder: Path, output: str) -> "subprocess.Popen[str]":
    command = [sys.executable, "-m", "jaxrank.encode_documents", "--model", "model"]
    command += ["--collection", "c", "--output", output, "--dtype", "float32", "--batch_size", "8"]
    # Compiled once for all processes.
    environment = os.environ | {
        "PYTHONPATH": str(ROOT),
        "JAX_PLATFORMS": "cpu",
        "JAX_ENABLE_COMPILATION_CACHE": "1",
        "JAX_COMPILATION_CACHE_DIR": str(folder / "xla"),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    }
    return subprocess.Popen(
        command,
        cwd=folder,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def shards_of(folder: Path) -> int:
    return len(list(folder.glob("shard-*")))


def files_of(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.slow
def test_states_after_ten_kills_are_those_of_an_undisturbed_call(tmp_path: Path) -> None:
    words = random.Random(0)
    documents = {
        f"d{number}": " ".join(words.choices(WORDS, k=words.randint(1, 40)))
        for number in range(SHARDS * PER_SHARD)
    }
    write_collection(tmp_path, documents)
    save_model(tmp_path / "model")
    identity = Reranker.from_pretrained(tmp_path / "model").state_identity()
    for name in ("whole", "killed"):
        # So small that a kill meets some shards done and some not.
        StateStore.create(
            tmp_path / name, identity, "float32", "float32", documents_per_shard=PER_SHARD
        )
    undisturbed = start(tmp_path, "whole")
    said = undisturbed.communicate(timeout=START_S)[0]
    assert undisturbed.returncode == 0, said
    moments = random.Random(1)
    kills_in_writing = 0
    for kill in range(KILLS):
        process = start(tmp_path, "killed")
        # Some while the process starts, the others while it writes.
        target = 0 if kill % 5 == 0 else shards_of(tmp_path / "killed") + moments.randint(1, 8)
        deadline_s = time.monotonic() + START_S
        while shards_of(tmp_path / "killed") < target and process.poll() is None:
            assert time.monotonic() < deadline_s
            time.sleep(0.001)
        time.sleep(moments.uniform(0, 3 if target == 0 else 0.02))
        process.send_signal(signal.SIGKILL)
        said = process.communicate(timeout=START_S)[0]
        assert process.returncode == -signal.SIGKILL, said
        kills_in_writing += 0 < shards_of(tmp_path / "killed") < SHARDS
        # What is there is whole, and opens, after every kill.
        assert find_faults(tmp_path / "killed") == []
        assert len(StateStore.open(tmp_path / "killed")) % PER_SHARD == 0
    assert kills_in_writing >= KILLS // 2
    last = start(tmp_path, "killed")
    said = last.communicate(timeout=START_S)[0]
    assert last.returncode == 0, said
    assert " documents are in killed already" in said
    assert files_of(tmp_path / "killed") == files_of(tmp_path / "whole")
    # And a call that finds all there changes nothing.
    shutil.copytree(tmp_path / "killed", tmp_path / "copy")
    again = start(tmp_path, "killed")
    said = again.communicate(timeout=START_S)[0]
    assert f"{SHARDS * PER_SHARD} of {SHARDS * PER_SHARD} documents are in killed already" in said
    assert files_of(tmp_path / "killed") == files_of(tmp_path / "copy")
