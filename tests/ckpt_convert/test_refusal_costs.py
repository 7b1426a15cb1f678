"""What it costs to refuse a hostile file, in a process of its own: seconds, memory, no traces.

Processor time is measured, not the clock, so that a busy machine fails nothing.
"""

import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import torch

from ckpt_convert import pickle_worker, weight_files
from tests.ckpt_convert.hostile import Call, write_pickle, write_raw

ROOT = Path(__file__).resolve().parents[2]

_MEASURE = """
import json, resource, sys
from pathlib import Path
import safetensors
from ckpt_convert.pickle_files import opened_weights
from jaxrank.errors import InputError

def seconds():
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in used)

for name in sys.argv[1:]:
    start = seconds()
    try:
        with opened_weights(Path(name), allow_pickle=True):
            line = "read"
    except InputError as error:
        line = str(error)
    took = seconds() - start
    # Not ru_maxrss of itself, which starts at that of the process that started this one.
    own = int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0])
    peak = max(own, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
    print(json.dumps([line, took, peak / 1e3]))
"""


def write_hostile_pickles(root: Path) -> dict[str, str]:
    """Folder -> what its refusal must say."""
    said = {}

    def folder(name: str, message: str) -> Path:
        said[name] = message
        (root / name).mkdir()
        return root / name / "pytorch_model.bin"

    mark = root / "MARK"
    torch.save({"a": Call(os.system, f"touch {mark}")}, folder("code", "refers to posix.system"))
    torch.save({"a": torch.zeros(1).expand(10**6, 10**6)}, folder("view", "claims 1000000000000"))
    # 64 MB that deflate to 64 KB.
    with zipfile.ZipFile(folder("deflated", "is compressed"), "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", b"}.")
        archive.writestr("archive/data/0", bytes(64 << 20))
    # A zip of 60,000 members: the directory alone is 4 MB.
    with zipfile.ZipFile(folder("members", "members; no model needs that"), "w") as archive:
        for index in range(100_001):
            archive.writestr(str(index), b"")
    ten_to_the_tenth = b"\x8a\x05\x00\xe4\x0b\x54\x02"
    allocate = b"\x80\x02}K\x01cbuiltins\nbytearray\n" + ten_to_the_tenth + b"\x85Rs."
    write_pickle(folder("allocation", "needs far more memory than the file is long"), allocate)
    # Tuples that hold the one before twice, 60 deep, as a key: its hash would take 2^60 steps.
    hashed = b"\x80\x02})" + b"q\x00h\x00\x86" * 60 + b"Ns."
    write_pickle(folder("hash", "takes far longer to read than its length needs"), hashed)
    most = pickle_worker.MAX_PICKLE_BYTES
    write_pickle(folder("marks", "damaged"), b"(" * (most - 1) + b".")
    # The older format says how large a storage is before its bytes come.
    older = folder("older", "needs far more memory than the file is long")
    torch.save({"a": torch.zeros(77_777)}, older, _use_new_zipfile_serialization=False)
    content = older.read_bytes()
    assert content.count(b"J\xd1/\x01\x00") == 2
    older.write_bytes(content.replace(b"J\xd1/\x01\x00", b"J\xff\xff\xff\x7f")[:2_000])
    return said


def write_hostile_safetensors(root: Path) -> dict[str, str]:
    """Folder -> what its refusal must say."""
    said = {}

    def folder(name: str, message: str) -> Path:
        said[name] = message
        (root / name).mkdir()
        return root / name

    def header(unit: bytes, size: int = weight_files.MAX_HEADER_BYTES) -> bytes:
        return b'{"a":[' + unit * ((size - 12) // len(unit)) + unit[:-1] + b"]}"

    # 79 MB, the measured case, of which nothing is read; then the worst that is read.
    empty = b'"%07d":{"dtype":"F32","shape":[0],"data_offsets":[0,0]},'
    tensors = b"".join(empty % index for index in range(1_200_000))[:-1]
    write_raw(folder("79 MB", "the header claims"), b"{" + tensors + b"}")
    few = b"".join(empty % index for index in range(130_000))[:-1]
    write_raw(folder("8 MB of tensors", "130000 tensors; at most 50000"), b"{" + few + b"}")
    write_raw(folder("8 MB of objects", "damaged"), header(b"{},"))
    write_raw(folder("8 MB of lists", "damaged"), header(b"[],"))
    write_raw(folder("8 MB of nesting", "damaged"), b"[" * weight_files.MAX_HEADER_BYTES)
    index = folder("16 MB of index", "tensors; at most 50000") / "model.safetensors.index.json"
    names = b"".join(b'"%d":"%d",' % (number, number) for number in range(900_000))[:-1]
    index.write_bytes(b'{"weight_map":{' + names + b"}}")
    assert index.stat().st_size < weight_files.MAX_INDEX_BYTES
    return said


@pytest.mark.parametrize(
    ("write", "most_seconds"),
    [(write_hostile_safetensors, 2), (write_hostile_pickles, 4)],
    ids=["safetensors", "pickles"],
)
def test_refusing_takes_seconds_and_megabytes_and_leaves_no_trace(tmp_path, write, most_seconds):
    said = write(tmp_path)
    before = sorted(tmp_path.rglob("*"))
    (tmp_path / "temporary").mkdir()
    done = subprocess.run(
        [sys.executable, "-c", _MEASURE, *(str(tmp_path / name) for name in said)],
        cwd=ROOT,
        env={**os.environ, "TMPDIR": str(tmp_path / "temporary")},
        capture_output=True,
        text=True,
        check=True,
    )
    for (name, message), printed in zip(said.items(), done.stdout.splitlines(), strict=True):
        line, seconds, megabytes = json.loads(printed)
        assert line.startswith(f"{tmp_path / name}{os.sep}")
        assert message in line
        assert "\n" not in line
        assert seconds < most_seconds, (name, seconds)
        assert megabytes < 500, (name, megabytes)
    # No mark of the code that would have run, nothing left of the conversions.
    (tmp_path / "temporary").rmdir()
    assert sorted(tmp_path.rglob("*")) == before
