"""Lucene indexes on disk: built whole or not at all, and known by the collection they are of.

Documents are analysed as Anserini does by default: Lucene's standard tokenizer, lower case, its 33
English stopwords, Porter's first stemmer. Postings and lengths are kept, positions and texts are
not. The folder is an ordinary Lucene index, which Pyserini opens too; a manifest in it says what it
is of.
"""

import dataclasses
import json
import os
import re
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from jaxrank.data.collection import Collection
from jaxrank.data.document_text import DocumentText
from jaxrank.errors import InputError
from jaxrank.files import atomic_folder, atomic_open, check_target, exclusive, read_json
from jaxrank.progress import progress_bar
from jaxrank.retrieval.lucene_java import (
    anserini_version,
    java_class,
    java_error,
    problem,
    wait_for,
)

_MANIFEST = "jaxrank-index.json"
_BATCH_DOCUMENTS = 1_000
_BATCH_CHARACTERS = 4_000_000
_BYTES_PER_MIB = 1 << 20
_LARGEST_BUFFER_MIB = 1_024


@dataclasses.dataclass(frozen=True)
class IndexManifest:
    """What an index is of.

    Attributes:
        documents_digest: SHA-256 of the collection's documents.
        document_text: which fields of a document became its text.
        documents: documents of the collection.
        indexed: those that are in the index; the others have no text.
        anserini: version that made it.
        format: of this manifest.
    """

    documents_digest: str
    document_text: DocumentText
    documents: int
    indexed: int
    anserini: str
    format: int = 1


def holds_index(folder: Path) -> bool:
    """Whether a folder holds a Lucene index, of whatever make."""
    return any(folder.glob("segments_*"))


def read_manifest(folder: Path) -> IndexManifest | None:
    """What an index is of; None for one that was made by other tools.

    Raises:
        InputError: a manifest that cannot be read.
    """
    path = folder / _MANIFEST
    if not path.exists():
        return None
    try:
        return IndexManifest(**read_json(path))
    except TypeError:
        raise InputError(
            f"{path}: made by another version; remove {folder} to build the index again"
        ) from None


def check_manifest(folder: Path, manifest: IndexManifest, collection: Collection) -> None:
    """Refuse an index of another collection, naming the first thing in which they differ."""
    documents = collection.documents
    mend = "give another --index, or remove the folder to build it again"
    if manifest.document_text != documents.document_text:
        raise InputError(
            f"{folder}: the index is of document_text {manifest.document_text}, asked for is "
            f"{documents.document_text}; {mend}"
        )
    if manifest.documents != len(documents):
        raise InputError(
            f"{folder}: the index is of {manifest.documents} documents, {collection.folder} has "
            f"{len(documents)}; {mend}"
        )
    if manifest.documents_digest != collection.documents_digest():
        raise InputError(
            f"{folder}: the index is of other documents than {collection.folder} has now, though "
            f"as many; {mend}"
        )


def build_index(
    collection: Collection, folder: Path, *, threads: int, progress: bool = False
) -> IndexManifest:
    """Index a collection's documents, reading each text once.

    A build that is killed leaves nothing under `folder`; what it leaves beside it, gigabytes for a
    large collection, is cleared by the next build.

    Args:
        threads: threads that analyse texts.
        progress: whether to draw a progress bar.

    Raises:
        InputError: Java that is missing, a document that Lucene refuses, no document with text, or
            another process that builds the same index.
    """
    documents = collection.documents
    with _only_builder(folder), atomic_folder(folder) as new:
        try:
            indexed = _index(documents.items(), len(documents), new, threads, progress)
        except java_error() as error:
            raise InputError(f"{folder}: cannot be built; {problem(error)}") from None
        manifest = IndexManifest(
            collection.documents_digest(),
            documents.document_text,
            len(documents),
            indexed,
            anserini_version(),
        )
        with atomic_open(new / _MANIFEST) as file:
            json.dump(dataclasses.asdict(manifest), file, indent=2)
            file.write("\n")
    return manifest


@contextmanager
def _only_builder(folder: Path) -> Iterator[None]:
    """Keep a second builder out, and clear away what killed ones have left beside the folder."""
    check_target(folder, is_folder=True)
    folder = folder.absolute()

    def refuse() -> None:
        raise InputError(f"{folder}: another process is building this index; wait for its end")

    with exclusive(folder.with_name(f".{folder.name}.lock"), when_taken=refuse):
        leftover = re.compile(rf"\.{re.escape(folder.name)}\.\w+\.(part|old)")  # of atomic_folder
        for path in folder.parent.iterdir():
            if leftover.fullmatch(path.name) and path.is_dir():
                shutil.rmtree(path)
        yield


def _index(
    documents: Iterable[tuple[str, str]], total: int, folder: Path, threads: int, progress: bool
) -> int:
    """Write the index; returns how many documents Lucene took, which is those with text."""
    indexer = java_class("io.anserini.index.SimpleIndexer", private=True)(
        os.fspath(folder.absolute()), False, threads
    )
    # Anserini's 2 GiB would not fit into the memory that Java takes on small machines: a quarter.
    runtime = java_class("java.lang.Runtime").getRuntime()
    buffer = min(_LARGEST_BUFFER_MIB, runtime.maxMemory() / _BYTES_PER_MIB / 4)
    indexer.writer.getConfig().setRAMBufferSizeMB(float(buffer))
    indexed = blank = 0
    with progress_bar(
        description="indexing documents", unit="document", enabled=progress, total=total
    ) as bar:
        for batch in _batches(documents):
            lines = [json.dumps({"id": name, "contents": text}) for name, text in batch]
            indexed += wait_for(partial(indexer.addRawDocuments, lines))
            blank += sum(not text.strip() for _, text in batch)
            bar.update(len(batch))
    wait_for(indexer.close)
    if indexed + blank < total:
        raise InputError(
            f"{folder}: Lucene took {indexed} of {total} documents, though {total - blank} have a "
            "text; is the disk full?"
        )
    if not indexed:
        raise InputError(f"collection: no text to index in {total} documents")
    return indexed


def _batches(documents: Iterable[tuple[str, str]]) -> Iterator[list[tuple[str, str]]]:
    """Documents in lists whose texts fit into memory whatever their lengths."""
    batch: list[tuple[str, str]] = []
    characters = 0
    for document_id, text in documents:
        batch.append((document_id, text))
        characters += len(text)
        if len(batch) == _BATCH_DOCUMENTS or characters >= _BATCH_CHARACTERS:
            yield batch
            batch, characters = [], 0
    if batch:
        yield batch
