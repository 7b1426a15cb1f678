"""Flips single bits of a store of document states, one at a time, and sees who notices."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path

import numpy as np

from jaxrank.errors import InputError
from jaxrank.ranking.document_states.disk.store import StateStore
from jaxrank.ranking.document_states.disk.verification import find_faults

_DOCUMENTS_AT_ONCE = 64


@dataclass
class Flips:
    """What came of the bits that were flipped."""

    flipped: int = 0
    found_by_verify: int = 0
    refused: int = 0
    """On opening the store, or on reading a state."""
    harmless: int = 0
    """All states were read as they should be."""
    silent: int = 0
    """A wrong state was read, or a document was not there, and nothing was said."""
    missed: list[str] = field(default_factory=list)
    """Places that verifying did not find, or where wrong states were read."""


def flip_often(store: Path, copy: Path, flips: int, seed: int) -> Flips:
    """Flip bits of a copy of the store, half of them in any file, half at any byte of all files.

    The first half hits the small files, in which damage may do the most.
    """
    shutil.rmtree(copy, ignore_errors=True)
    shutil.copytree(store, copy)
    right = read_digests(store)
    random = np.random.default_rng(seed)
    files = sorted(path for path in copy.rglob("*") if path.is_file() and path.stat().st_size)
    sizes = np.array([path.stat().st_size for path in files], float)
    found = Flips()
    for number in range(flips):
        chances = None if number % 2 else sizes / sizes.sum()
        file = files[random.choice(len(files), p=chances)]
        place, bit = int(random.integers(file.stat().st_size)), int(random.integers(8))
        with flipped(file, place, bit):
            found.flipped += 1
            is_found = bool(find_faults(copy))  # it never opens the store, which may refuse
            found.found_by_verify += is_found
            try:
                is_right = read_digests(copy) == right
            except InputError:
                found.refused += 1
                is_right = True
            else:
                found.harmless += is_right
                found.silent += not is_right
        if not (is_found and is_right):
            found.missed.append(f"{file.relative_to(copy)}, byte {place}, bit {bit}")
    shutil.rmtree(copy)
    return found


@contextmanager
def flipped(file: Path, place: int, bit: int) -> Iterator[None]:
    """A file with one other bit, for a while."""
    with file.open("r+b") as opened:
        opened.seek(place)
        (byte,) = opened.read(1)
    _write(file, place, byte ^ 1 << bit)
    try:
        yield
    finally:
        _write(file, place, byte)


def read_digests(folder: Path) -> dict[str, str]:
    """Document -> SHA-256 of its state, read with verification on.

    Raises:
        InputError: the store is refused.
    """
    store = StateStore.open(folder, verify=True)
    digests = {}
    ids = list(store.document_ids)
    for start in range(0, len(ids), _DOCUMENTS_AT_ONCE):
        for record in store.records(ids[start : start + _DOCUMENTS_AT_ONCE]):
            digest = sha256(str(record.length).encode())
            for name, array in sorted(record.arrays.items()):
                digest.update(f"{name} {array.dtype} {array.shape}".encode())
                digest.update(array.tobytes())
            digests[record.document_id] = digest.hexdigest()
    return digests


def _write(file: Path, place: int, byte: int) -> None:
    with file.open("r+b") as opened:
        opened.seek(place)
        opened.write(bytes([byte]))
