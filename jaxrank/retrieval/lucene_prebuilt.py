"""Lucene indexes that Anserini's authors offer for download, by name.

The table of names is in Anserini's jar. Only indexes for BM25 over plain English words are taken:
those of several fields or of learned weights would give a run that looks like BM25 and is not.
"""

import difflib
import functools
import json
import zipfile
from pathlib import Path

from jaxrank.errors import InputError
from jaxrank.retrieval.lucene_java import (
    anserini_jar,
    java_class,
    java_error,
    problem,
    wait_for,
)

_TABLES = "prebuilt-indexes/"
_OTHER_KINDS = ("multifield", "unicoil")


@functools.cache
def prebuilt_names() -> tuple[str, ...]:
    """Names of all indexes on offer for BM25, sorted.

    Raises:
        InputError: Anserini's jar is not here.
    """
    names = []
    with zipfile.ZipFile(anserini_jar()) as jar:
        for path in jar.namelist():
            if path.startswith(_TABLES) and path.endswith(".json"):
                entries = json.loads(jar.read(path))
                names += [entry["name"] for entry in entries if entry["type"] == "inverted"]
    return tuple(sorted(n for n in names if not any(kind in n for kind in _OTHER_KINDS)))


def check_name(name: str) -> None:
    """Refuse what is no name of an index on offer, with the nearest ones."""
    if name in prebuilt_names():
        return
    nearest = difflib.get_close_matches(name, prebuilt_names(), n=3, cutoff=0.5)
    advice = f"nearest: {', '.join(nearest)}" if nearest else f"e.g. {prebuilt_names()[-1]}"
    raise InputError(
        f"index {name!r}: no folder of this name, nor a prebuilt index ({advice}); for a folder "
        f"that is to be built write ./{name}"
    )


def fetch_prebuilt(name: str) -> Path:
    """The folder of a prebuilt index, downloaded at first use into Anserini's own cache.

    That is ~/.cache/pyserini/indexes, or what the variable ANSERINI_INDEX_CACHE names.

    Raises:
        InputError: an unknown name, or a download that fails.
    """
    check_name(name)
    handler = java_class("io.anserini.util.PrebuiltIndexHandler").get(name)
    _show_downloads()
    try:
        wait_for(handler.fetch)
    except java_error() as error:
        size = handler.getCompressedSize() / 1e6
        raise InputError(
            f"index {name}: cannot be downloaded ({size:,.0f} MB, {handler.getFilename()}; "
            f"{problem(error)}); check the network, or unpack it yourself and give its folder"
        ) from None
    return Path(handler.getIndexPath().toString())


def _show_downloads() -> None:
    """Let Anserini tell how far a download is, since it may take an hour."""
    level = java_class("org.apache.logging.log4j.Level").INFO
    configurator = java_class("org.apache.logging.log4j.core.config.Configurator")
    configurator.setLevel("io.anserini.util.PrebuiltIndexHandler", level)
