"""What a folder of states says about itself: what they were made for, and its shards.

It holds a SHA-256 of its own content, so that a change of any bit of it is found. A second copy
stands beside it, which is read where the first is damaged: without either no state can be used.
"""

import json
import logging
from dataclasses import asdict, dataclass
from functools import cached_property, lru_cache
from hashlib import sha256
from pathlib import Path

from jaxrank.errors import InputError
from jaxrank.files import atomic_open
from jaxrank.ranking.document_states.formats import StateDType
from jaxrank.ranking.document_states.identity import StateIdentity, identity_from_json

MANIFEST_FILE = "manifest.json"
COPY_FILE = "manifest.copy.json"
FORMAT = 2

_CONTENT = "jaxrank document states"
_MEND = "delete its folder and encode the documents again"

_log = logging.getLogger(__name__)


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

    @property
    def num_documents(self) -> int:
        """Documents of all shards."""
        return sum(shard.documents for shard in self.shards)

    @cached_property  # asked for at every visit
    def nbytes(self) -> int:
        """Bytes of all states, without their ids."""
        return sum(shard.bytes - shard.index_bytes for shard in self.shards)

    def write(self, folder: Path) -> None:
        """Replace the folder's manifest, and then its copy: what is read is what comes first.

        Where there is no room for the copy there is none until the next write.
        """
        rendered = self._rendered()
        _write(folder / MANIFEST_FILE, rendered)
        try:
            _write(folder / COPY_FILE, rendered)
        except OSError as error:
            (folder / COPY_FILE).unlink(missing_ok=True)
            what = error.strerror or error
            _log.warning("%s: %s; it is written with the next shard", folder / COPY_FILE, what)

    def write_where_other(self, folder: Path) -> None:
        """Write the files that hold anything else, as after a kill between the two, or damage."""
        rendered = self._rendered()
        for path in (folder / MANIFEST_FILE, folder / COPY_FILE):
            if not path.exists() or path.read_bytes() != rendered:
                _write(path, rendered)

    def _rendered(self) -> bytes:
        """The bytes of a file: the SHA-256 of all behind it, and a line for each shard."""
        content = {
            "content": _CONTENT,
            "format": FORMAT,
            "dtype": self.dtype,
            "computed_in": self.computed_in,
            "identity": self.identity.as_json(),
            "documents_per_shard": self.documents_per_shard,
            "next_shard": self.next_shard,
        }
        text = json.dumps(content, indent=1).removeprefix("{\n").removesuffix("\n}")
        shards = ",\n".join(map(_line, self.shards))
        return _with_digest(f'{text},\n "shards": [\n{shards}\n ]\n}}\n'.encode())


def read_manifest(folder: Path) -> Manifest:
    """The manifest of a folder; with a warning its copy, if the first is damaged or lost.

    Raises:
        InputError: there is none, it is of something else or of another format, or it is damaged
            and so is its copy.
    """
    manifest, path = find_manifest(folder)
    if path.name != MANIFEST_FILE:
        _log.warning(
            "%s: damaged or lost; %s is read in its place, and whoever writes next puts it right",
            folder / MANIFEST_FILE,
            path.name,
        )
    return manifest


def find_manifest(folder: Path) -> tuple[Manifest, Path]:
    """What `read_manifest` gives, and the file that it is from.

    Raises:
        InputError: as of `read_manifest`.
    """
    path, copy = folder / MANIFEST_FILE, folder / COPY_FILE
    try:
        return read_manifest_file(path), path
    except InputError as error:
        try:
            return read_manifest_file(copy), copy
        except InputError:
            raise error from None


def read_manifest_file(path: Path) -> Manifest:
    """The manifest in one file.

    Raises:
        InputError: as of `read_manifest`.
    """
    try:
        written = path.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        raise InputError(_not_there(path.parent)) from None
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
    # Byte by byte: other bytes may stand for the same content.
    if written != _with_digest(written[len(_with_digest(b"")) :]):
        raise InputError(f"{path}: damaged; {_MEND}")
    del content["sha256"], content["content"], content["format"]
    content["identity"] = identity_from_json(content["identity"])
    content["shards"] = tuple(ShardEntry(**shard) for shard in content["shards"])
    return Manifest(**content)


def holds_states(folder: Path) -> bool:
    """Whether there is a manifest, or its copy; either may be damaged."""
    return (folder / MANIFEST_FILE).exists() or (folder / COPY_FILE).exists()


def _not_there(folder: Path) -> str:
    if folder.is_dir():
        return (
            f"{folder}: has no {MANIFEST_FILE}, so it holds no document states; give a folder that "
            "encode_documents has written"
        )
    found = "this is a file" if folder.exists() else "there is none"
    return f"{folder}: a folder of document states is needed, {found}; encode_documents writes one"


@lru_cache(maxsize=1 << 16)  # each is asked for again whenever a shard is added
def _line(shard: ShardEntry) -> str:
    return f"  {json.dumps(asdict(shard))}"


def _with_digest(rest: bytes) -> bytes:
    """A file, of what follows the line with its SHA-256."""
    return b'{\n "sha256": "%s",\n%s' % (sha256(rest).hexdigest().encode(), rest)


def _write(path: Path, content: bytes) -> None:
    with atomic_open(path, "wb") as file:
        file.write(content)
