"""Digests of what is stored: 64 bits of a text, SHA-256 of a file while it is written."""

from hashlib import blake2b, sha256
from typing import IO, Any, TypeAlias

_HASH_BYTES = 8

Buffer: TypeAlias = Any
"""Bytes, or what else shows its memory byte by byte: `collections.abc.Buffer` of Python 3.12."""


def hash_text(text: str) -> int:
    """64 bits of BLAKE2b of a text's UTF-8 bytes, as an integer that is not negative."""
    digest = blake2b(text.encode("utf-8"), digest_size=_HASH_BYTES).digest()
    return int.from_bytes(digest, "little")


class HashedFile:
    """A file that is only written to, and the SHA-256 and number of the bytes so far."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._digest = sha256()
        self.size = 0

    def write(self, data: Buffer) -> int:
        """Append bytes."""
        self._digest.update(data)
        self.size += len(data)
        return self._file.write(data)

    def flush(self) -> None:
        """Hand on what was written."""
        self._file.flush()

    def hexdigest(self) -> str:
        """SHA-256 of all that was written."""
        return self._digest.hexdigest()

    @property
    def closed(self) -> bool:
        """Whether the file is closed."""
        return self._file.closed
