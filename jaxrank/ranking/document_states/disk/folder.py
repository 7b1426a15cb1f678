"""The files of a store's folder: their names, the writers' lock, and what killed writers leave."""

import errno
import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from jaxrank.errors import InputError
from jaxrank.files import check_target, exclusive
from jaxrank.ranking.document_states.disk.manifest import Manifest, find_manifest, holds_states

_LOCK_FILE = ".lock"
_SHARD = re.compile(r"shard-[0-9]+\.safetensors")
_LEFTOVER = re.compile(r"\.(shard-[0-9]+\.safetensors|manifest(\.copy)?\.json)\..*\.part")
_NO_ROOM = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}

_log = logging.getLogger(__name__)


def shard_name(number: int) -> str:
    """The name of a shard, which no other shard of the store ever has."""
    return f"shard-{number:05}.safetensors"


def mend_command(folder: Path) -> str:
    """The command that takes all that is damaged out of a store, as messages name it."""
    return f"python -m jaxrank.encode_documents mend --output {folder}"


def check_folder(folder: Path) -> None:
    """Refuse, before any work, a folder that no store can be made in or gone on with.

    Nothing is written.

    Raises:
        InputError: it holds something else, or states that cannot be read, or is no folder.
    """
    check_target(folder, is_folder=True)
    if holds_states(folder):
        find_manifest(folder)
        return
    for path in folder.iterdir() if folder.exists() else ():
        if path.name != _LOCK_FILE and not _LEFTOVER.fullmatch(path.name):
            raise InputError(
                f"{path}: does not belong to a new store of document states; choose another folder"
            )


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Be the folder's only writer; waits, with a warning, while another is."""
    check_target(folder, is_folder=True)
    wait = partial(_log.warning, "%s: another process writes into it; waiting for it", folder)
    with exclusive(folder / _LOCK_FILE, when_taken=wait):
        yield


def clean_up(folder: Path, manifest: Manifest) -> None:
    """Delete what killed writers have left, and shards that the manifest no longer names.

    Needs the lock.

    Args:
        manifest: the folder's; afterwards its file and the copy both hold it.
    """
    manifest.write_where_other(folder)
    names = {shard.name for shard in manifest.shards}
    for path in folder.iterdir():
        is_old = _SHARD.fullmatch(path.name) and path.name not in names
        if is_old or _LEFTOVER.fullmatch(path.name):
            path.unlink()


@contextmanager
def telling_of_full_disk(folder: Path) -> Iterator[None]:
    """Say of a full disk that nothing is lost, and what to do.

    Raises:
        InputError: in place of the system's error.
    """
    try:
        yield
    except OSError as error:
        if error.errno not in _NO_ROOM:
            raise
        raise InputError(
            f"{error.filename or folder}: {error.strerror}; the store is as it was before this "
            "file: make room and do the same again, which goes on from there"
        ) from None
