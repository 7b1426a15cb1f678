"""What a folder of states says about itself: what they were made for, and its shards.

It holds a SHA-256 of its own content, so that a change of any bit of it is found.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

from jaxrank.errors import InputError
from jaxrank.files import atomic_open
from jaxrank.ranking.document_states.formats import StateDType
from jaxrank.ranking.document_states.identity import StateIdentity, identity_from_json

MANIFEST_FILE = "manifest.json"
FORMAT = 1

_CONTENT = "jaxrank document states"
_MEND = "delete its folder and encode the documents again"


@dataclass(frozen=True)
class ShardEntry:
    """A file of states, as the manifest has it."""

    name: str
    documents: int
    bytes: int
    sha256: str
    index_bytes: int
    """Of the file's first part, which holds all but the states: where they are, and whose."""
    index_sha256: str
    """Of that part, so that it is checked whenever a store is opened."""


@dataclass(frozen=True)
class Manifest:
    """What a store says about itself."""

    identity: StateIdentity
    dtype: StateDType
    computed_in: str
    """What the model computed in, e.g. "float32"."""
    documents_per_shard: int
    next_shard: int = 0
    """Number of the shard that comes next. None is given twice: a reader that has an earlier
    manifest is to miss a file that was deleted, and not to find another in its place."""
    shards: tuple[ShardEntry, ...] = ()

    def write(self, folder: Path) -> None:
        """Replace the folder's manifest."""
        with atomic_open(folder / MANIFEST_FILE, "wb") as file:
            file.write(_rendered(self._as_json()))

    def _as_json(self) -> dict[str, Any]:
        return {
            "content": _CONTENT,
            "format": FORMAT,
            "dtype": self.dtype,
            "computed_in": self.computed_in,
            "identity": self.identity.as_json(),
            "documents_per_shard": self.documents_per_shard,
            "next_shard": self.next_shard,
            "shards": [asdict(shard) for shard in self.shards],
        }


def read_manifest(folder: Path) -> Manifest:
    """The manifest of a folder.

    Raises:
        InputError: there is none, it is of something else or of another format, or it is damaged.
    """
    path = folder / MANIFEST_FILE
    try:
        written = path.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        raise InputError(_not_there(folder)) from None
    try:
        content = json.loads(written)
        what, number = content["content"], content["format"]
    except (ValueError, RecursionError, KeyError, TypeError):
        what = number = None
    if what != _CONTENT:
        raise InputError(
            f"{path}: of something else than document states, or damaged; give another folder, "
            "or, if it is damaged, delete this one and encode its documents again"
        )
    if number != FORMAT:
        raise InputError(
            f"{path}: document states of format {number!r}; this version of jaxrank reads "
            f"{FORMAT}; {_MEND}"
        )
    content.pop("sha256", None)
    # Byte by byte: other bytes may stand for the same content.
    if written != _rendered(content):
        raise InputError(f"{path}: damaged; {_MEND}")
    del content["content"], content["format"]
    content["identity"] = identity_from_json(content["identity"])
    content["shards"] = tuple(ShardEntry(**shard) for shard in content["shards"])
    return Manifest(**content)


def _not_there(folder: Path) -> str:
    if folder.is_dir():
        return (
            f"{folder}: has no {MANIFEST_FILE}, so it holds no document states; give a folder that "
            "encode_documents has written"
        )
    found = "this is a file" if folder.exists() else "there is none"
    return f"{folder}: a folder of document states is needed, {found}; encode_documents writes one"


def _rendered(content: Mapping[str, Any]) -> bytes:
    """A manifest's bytes, with the SHA-256 of its content."""
    digest = sha256(json.dumps(content).encode()).hexdigest()
    return json.dumps({"sha256": digest, **content}, indent=1).encode() + b"\n"
