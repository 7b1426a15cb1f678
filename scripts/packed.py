"""A folder's results in one file, and back: some machines give back few files.

python -m scripts.packed FILE FOLDER     unpack, keeping what FOLDER has already
"""

import argparse
import json
from pathlib import Path

from jaxrank.command_line import run
from jaxrank.errors import InputError
from jaxrank.files import atomic_open, read_json

FORMAT = "jaxrank packed results 1"


def pack(folder: Path, file: Path) -> int:
    """Write all JSON files of a folder into one; returns how many."""
    found = {
        path.name: json.loads(path.read_text(encoding="utf-8"))
        for path in sorted(folder.glob("*.json"))
        if path.resolve() != file.resolve()
    }
    with atomic_open(file) as opened:
        opened.write(json.dumps({"format": FORMAT, "files": found}) + "\n")
    return len(found)


def unpack(file: Path, folder: Path) -> int:
    """Write the files that the folder does not have; returns how many.

    Raises:
        InputError: `file` is none that `pack` wrote.
    """
    values = read_json(file)
    if values.get("format") != FORMAT:
        raise InputError(f"{file}: no packed results; one with format {FORMAT!r} is needed")
    written = 0
    for name, value in values["files"].items():
        path = folder / Path(name).name
        if not path.exists():
            with atomic_open(path) as opened:
                opened.write(json.dumps(value) + "\n")
            written += 1
    return written


def main() -> None:
    """Unpack, and say how much."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("file", type=Path)
    parser.add_argument("folder", type=Path)
    options = parser.parse_args()
    print(f"{unpack(options.file, options.folder)} files written to {options.folder}")


if __name__ == "__main__":
    run(main)
