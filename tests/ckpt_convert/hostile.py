"""Files made to do harm, for the tests that see them refused."""

import json
import struct
import zipfile
from pathlib import Path


class Call:
    """Pickles as a call of any function."""

    def __init__(self, function: object, *arguments: object) -> None:
        self.call = function, arguments

    def __reduce__(self) -> tuple[object, ...]:
        return self.call


def write_pickle(path: Path, pickle: bytes, *, storage: bytes = b"") -> None:
    """A file of torch.save's layout with any data.pkl."""
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", pickle)
        archive.writestr("archive/data/0", storage)
        archive.writestr("archive/version", b"3\n")


def write_raw(folder: Path, header: dict | bytes, data: bytes = b"") -> Path:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path = folder / "model.safetensors"
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)
    return path
