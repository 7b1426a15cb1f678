"""A manifest: the SHA-256 of every file of a folder, so that damage is found before it is used.

`manifest.json` holds the digest of its own content too, for a bit that flips in it.
"""

import json
from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path
from typing import Any

from jaxrank.errors import InputError
from jaxrank.files import atomic_open, file_digest, parse_json_object

MANIFEST_FILE = "manifest.json"


def write_manifest(folder: Path, about: Mapping[str, Any]) -> None:
    """Write the digests of all files below `folder`, and `about`, what else is to be kept safe.

    The folder is complete: whatever is added or changed afterwards counts as damage.
    """
    content = {"about": dict(about), "files": _digests(folder)}
    with atomic_open(folder / MANIFEST_FILE) as file:
        json.dump({"sha256": _digest(content), **content}, file, indent=1)


def verify_manifest(folder: Path) -> dict[str, Any]:
    """Check every file below `folder` and return what `write_manifest` was told about it.

    Raises:
        InputError: the manifest is missing or damaged, or a file was changed, removed or added.
            The message is the reason alone, without the name of the folder.
    """
    path = folder / MANIFEST_FILE
    if not path.is_file():
        raise InputError(f"{MANIFEST_FILE} is missing")
    try:
        manifest = parse_json_object(path.read_bytes(), where=MANIFEST_FILE)
    except InputError:
        raise InputError(f"{MANIFEST_FILE} is damaged") from None
    content = {name: manifest.get(name) for name in ("about", "files")}
    if manifest.keys() != {"sha256", *content} or manifest["sha256"] != _digest(content):
        raise InputError(f"{MANIFEST_FILE} is damaged")
    expected: dict[str, str] = manifest["files"]
    found = _digests(folder)
    for name in sorted(expected.keys() | found.keys()):
        if name not in found:
            raise InputError(f"{name} is missing")
        if name not in expected:
            raise InputError(f"{name} was not there when it was saved")
        if found[name] != expected[name]:
            raise InputError(f"{name} was changed since it was saved")
    about: dict[str, Any] = manifest["about"]
    return about


def _digests(folder: Path) -> dict[str, str]:
    """Path below `folder` -> SHA-256, of all files but the manifest."""
    files = sorted(path for path in folder.rglob("*") if not path.is_dir())
    names = {path.relative_to(folder).as_posix(): path for path in files}
    return {name: file_digest(path) for name, path in names.items() if name != MANIFEST_FILE}


def _digest(content: Mapping[str, Any]) -> str:
    return sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
