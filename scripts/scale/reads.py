"""python -m scripts.scale.reads: documents a second by random access, and what opening takes.

Prints a JSON object. The first pass is cold if the caller dropped the files from the page cache;
the second reads the same documents again.
"""

import argparse
import json
import time
from pathlib import Path

import numpy as np

from jaxrank.data.collection import Collection
from jaxrank.data.documents import Documents
from scripts.scale.source import document_id


def read_all(documents: Documents, ids: list[str]) -> dict[str, float]:
    """Read each document once, on one thread."""
    from_disk = _bytes_from_disk()
    seconds = np.empty(len(ids))
    characters = 0
    begin = last = time.perf_counter()
    for place, name in enumerate(ids):
        characters += len(documents[name])
        now = time.perf_counter()
        seconds[place], last = now - last, now
    return {
        "reads_per_second": len(ids) / (last - begin),
        "p99_ms": float(np.percentile(seconds, 99)) * 1e3,
        "characters": characters / len(ids),
        "disk_bytes": (_bytes_from_disk() - from_disk) / len(ids),
    }


def _bytes_from_disk() -> int:
    rows = dict(line.split(": ") for line in Path("/proc/self/io").read_text().splitlines())
    return int(rows["read_bytes"])


def main() -> None:
    """Open the collection, read, print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--collection", type=Path, required=True)
    parser.add_argument("--documents", type=int, required=True, help="how many the collection has")
    parser.add_argument("--reads", type=int, required=True)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    draw = np.random.default_rng([options.seed, 2])
    ids = [document_id(n) for n in draw.integers(0, options.documents, options.reads).tolist()]
    begin = time.perf_counter()
    documents = Collection.open(options.collection).documents
    opened = time.perf_counter() - begin
    if len(documents) != options.documents:
        raise SystemExit(f"{len(documents)} documents, {options.documents} were expected")
    report = {"open_s": opened, "cold": read_all(documents, ids), "warm": read_all(documents, ids)}
    print(json.dumps(report))


if __name__ == "__main__":
    main()
