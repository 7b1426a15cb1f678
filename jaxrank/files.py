"""Files: text read strictly, results written all or not at all, digests to tell versions apart."""

import fcntl
import gzip
import hashlib
import json
import os
import shutil
import tempfile
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from io import BufferedIOBase
from pathlib import Path
from typing import IO, Any

from jaxrank.errors import InputError

Inputs = Mapping[str, Iterable[str | Path | None]]
"""Option of a command -> files and folders given with it; None for what is not given."""

BOM = b"\xef\xbb\xbf"
"""The byte-order mark that some tools put before UTF-8 text."""

_CHUNK_BYTES = 1 << 20


def read_lines(path: str | Path) -> Iterator[tuple[int, str]]:
    """Yield `(line number from 1, text)` of a UTF-8 file, plain or gzip, without line ends.

    A byte-order mark and CRLF are dropped.

    Raises:
        InputError: a missing file, a broken gzip, or bytes that are not UTF-8 (with their line).
    """
    for number, line in enumerate(read_raw_lines(path), start=1):
        if number == 1:
            line = line.removeprefix(BOM)
        yield number, decode_line(line.rstrip(b"\r\n"), f"{path}:{number}")


def decode_line(line: bytes, where: str) -> str:
    """A line's text; bytes that are not UTF-8 are an InputError that begins with `where`."""
    try:
        return line.decode("utf-8")
    except UnicodeDecodeError as error:
        raise InputError(
            f"{where}: byte {error.start + 1} of the line is not UTF-8; convert the file, e.g. "
            "with iconv"
        ) from None


def read_raw_lines(path: str | Path) -> Iterator[bytes]:
    """Yield the lines of a file, plain or gzip, as they are; only a newline ends one.

    Raises:
        InputError: a missing file, or a broken gzip (with the line up to which it can be read).
    """
    path = Path(path)
    number = 0
    try:
        with _open(path, gzip.open if path.suffix == ".gz" else open) as file:
            for line in file:
                number += 1
                yield line
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise InputError(f"{path}:{number + 1}: broken gzip file ({error})") from None


def read_jsonl(path: str | Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield `(line number from 1, object)` of a JSON-lines file; blank lines are passed over.

    Raises:
        InputError: whatever `read_lines` raises, and a line that is not a JSON object.
    """
    for number, line in read_lines(path):
        if line.strip():
            yield number, parse_json_object(line, where=f"{path}:{number}")


def parse_json_object(text: str | bytes, *, where: str) -> dict[str, Any]:
    """The JSON object in `text`; anything else is an InputError that begins with `where`."""
    try:
        value = json.loads(text)
    except json.JSONDecodeError as error:
        raise InputError(f"{where}: not valid JSON ({error.msg}, {_place(error)})") from None
    except (ValueError, RecursionError) as error:  # a number of 5,000 digits is a ValueError
        raise InputError(f"{where}: not valid JSON ({error})") from None
    if not isinstance(value, dict):
        raise InputError(f"{where}: a JSON object is needed, got {type(value).__name__}")
    return value


def read_json(path: str | Path) -> dict[str, Any]:
    """The JSON object that a whole file holds; InputError names the file otherwise."""
    return parse_json_object("\n".join(line for _, line in read_lines(path)), where=str(path))


def check_target(path: str | Path, *, is_folder: bool = False) -> None:
    """Refuse a path that cannot be written, before hours of work and not after.

    Args:
        is_folder: whether a folder is to be written there, or a file.

    Raises:
        InputError: a folder stands where a file is needed or the other way round, also further up
            in the path, or a folder may not be written to.
    """
    path = Path(path)
    if path.exists() and path.is_dir() != is_folder:
        wanted, found = ("folder", "file") if is_folder else ("file", "folder")
        raise InputError(f"{path}: a {wanted} is to be written here, this is a {found}")
    parent = path.absolute().parent
    while not parent.exists():
        parent = parent.parent
    if not parent.is_dir():
        raise InputError(f"{path}: cannot be written, since {parent} is a file")
    if not os.access(parent, os.W_OK | os.X_OK):
        raise InputError(f"{path}: cannot be written, since {parent} may not be written to")


def check_apart(
    path: str | Path,
    inputs: Inputs,
    *,
    option: str = "--output",
    is_folder: bool = False,
) -> None:
    """Refuse an output that would take the place of what the command reads, before any work.

    Args:
        inputs: what it reads; a folder stands for all that is in it.
        option: that the output is given with.
        is_folder: whether a folder is to be written, and with it all that is in it.

    Raises:
        InputError: naming both options.
    """
    target = Path(path).resolve()
    for name, given in inputs.items():
        for place in (Path(one).resolve() for one in given if one is not None):
            inner, outer = (place, target) if is_folder else (target, place)
            if inner.is_relative_to(outer):
                raise InputError(
                    f"{path}: is an input of this command ({name}); give {option} another place"
                )


@contextmanager
def naming(path: str | Path) -> Iterator[None]:
    """Put the path into an OSError that names nothing, as that of a full disk, or our neighbour."""
    neighbour = os.path.join(os.path.dirname(os.path.abspath(path)), _prefix(Path(path)))
    try:
        yield
    except OSError as error:
        named = error.filename
        is_ours = named is None or os.path.abspath(str(named)).startswith(neighbour)
        if error.errno is not None and is_ours:
            error.filename = str(path)
        raise


@contextmanager
def atomic_open(path: str | Path, mode: str = "w") -> Iterator[IO[Any]]:
    """Open a file for writing that appears under `path` only once it is complete.

    The text goes to a temporary neighbour, is flushed to disk and renamed onto `path` when the
    block ends; when the block raises, nothing is left and an earlier `path` stays as it was.

    Args:
        mode: "w" for UTF-8 text with plain newlines, "wb" for bytes.
    """
    if mode not in ("w", "wb"):
        raise ValueError(f"mode must be 'w' or 'wb', got {mode!r}")
    path = Path(path)
    check_target(path)
    text: dict[str, Any] = {} if mode == "wb" else {"encoding": "utf-8", "newline": "\n"}
    with naming(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=_prefix(path), suffix=".part", dir=path.parent)
        try:
            with open(handle, mode, **text) as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            os.chmod(name, 0o666 & ~_umask())
            os.replace(name, path)
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise


@contextmanager
def atomic_folder(path: str | Path) -> Iterator[Path]:
    """Give a new, empty folder that becomes `path` when the block ends without an error.

    A folder that stood there before is replaced as a whole; when the block raises, it stays.
    """
    path = Path(path)
    check_target(path, is_folder=True)
    with naming(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        new = Path(tempfile.mkdtemp(prefix=_prefix(path), suffix=".part", dir=path.parent))
        old = new.with_suffix(".old")
        try:
            os.chmod(new, 0o777 & ~_umask())
            yield new
            for file in new.rglob("*"):  # some libraries write files that others cannot read
                file.chmod((0o777 if file.is_dir() else 0o666) & ~_umask())
            if path.exists():
                path.rename(old)
            new.rename(path)
        finally:
            # A Ctrl-C between the two renames would leave neither: the earlier folder comes back.
            if old.exists() and not path.exists():
                old.rename(path)
            for folder in (new, old):
                shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def exclusive(path: str | Path, *, when_taken: Callable[[], object]) -> Iterator[None]:
    """Let one process at a time through, by a lock on the file `path`.

    The system drops the lock of a killed process. The file is empty and stays: were it deleted, two
    processes could hold locks of two files with its name.

    Args:
        when_taken: called if another process holds the lock; it raises to give up, and after it the
            lock is waited for.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "wb") as file:
        with naming(path):
            is_ours = _lock_at_once(file)
        if not is_ours:
            when_taken()
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _lock_at_once(file: IO[bytes]) -> bool:
    """Lock a file unless another process has done so."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def file_digest(path: str | Path) -> str:
    """SHA-256 of a file's bytes, in hexadecimal."""
    digest = hashlib.sha256()
    with _open(Path(path), open) as file:
        while chunk := file.read(_CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()


def _place(error: json.JSONDecodeError) -> str:
    """Where JSON ends to be valid; a text of one line needs no line, and its end is no new one."""
    text = error.doc.rstrip()
    position = min(error.pos, len(text))
    column = position - text.rfind("\n", 0, position)
    line = f"line {text.count(chr(10), 0, position) + 1}, " if "\n" in text else ""
    return f"{line}column {column}"


def _open(path: Path, opener: Callable[..., Any]) -> BufferedIOBase:
    try:
        return opener(path, "rb")
    except FileNotFoundError:
        raise InputError(f"{path}: no such file") from None
    except IsADirectoryError:
        raise InputError(f"{path}: a file is needed, this is a folder") from None


def _prefix(path: Path) -> str:
    """How the name of a temporary neighbour of `path` begins."""
    return f".{path.name}."


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
