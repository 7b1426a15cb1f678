"""From what a user names, a folder or a dataset's id, to a source in the right layout."""

from collections.abc import Callable
from pathlib import Path

from jaxrank.data.importing.layouts.beir import CORPUS_FILE, beir
from jaxrank.data.importing.layouts.collection_source import (
    CollectionSource,
    Layout,
    LayoutOption,
    find_file,
)
from jaxrank.data.importing.layouts.ir_datasets_source import PREFIX, ir_datasets_source
from jaxrank.data.importing.layouts.msmarco import (
    DOCUMENTS_FILE,
    PASSAGES_FILE,
    msmarco_documents,
    msmarco_passages,
)
from jaxrank.errors import InputError

# Layout -> the file that only it has, and its reader.
_FOLDERS: dict[Layout, tuple[str, Callable[[Path], CollectionSource]]] = {
    "msmarco-document": (DOCUMENTS_FILE, msmarco_documents),
    "msmarco-passage": (PASSAGES_FILE, msmarco_passages),
    "beir": (CORPUS_FILE, beir),
}


def open_source(source: str, layout: LayoutOption = "auto") -> CollectionSource:
    """Find a collection in its official files, without reading them.

    Args:
        source: a folder, or `ir_datasets:ID`, or several such ids of the same documents with
            commas between.

    Raises:
        InputError: naming what was looked for: no such folder, no layout's files or those of
            several in it; and what the layout's reader raises.
    """
    if source.startswith(PREFIX) or layout == "ir-datasets":
        if layout not in ("auto", "ir-datasets"):
            raise InputError(f"layout: got {layout}; {source} is of ir-datasets")
        names = [name.strip() for name in source.removeprefix(PREFIX).split(",")]
        return ir_datasets_source(names)
    folder = Path(source)
    if not folder.is_dir():
        raise InputError(f"{source}: no such folder; an id of ir_datasets begins with {PREFIX}")
    if layout != "auto":
        return _FOLDERS[layout][1](folder)
    found = [name for name, (file, _) in _FOLDERS.items() if find_file(folder, file)]
    if len(found) > 1:
        raise InputError(f"{source}: holds files of {' and of '.join(found)}; say which in layout")
    if not found:
        files = ", ".join(f"{file} ({name})" for name, (file, _) in _FOLDERS.items())
        raise InputError(
            f"{source}: none of {files} is there, nor with .gz; it holds the documents"
        )
    return _FOLDERS[found[0]][1](folder)
