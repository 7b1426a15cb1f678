"""Turns a collection's official files into a collection folder, once and resumably."""

import json
from dataclasses import replace
from pathlib import Path
from time import perf_counter
from typing import Any, Literal, NamedTuple

from jaxrank.data.collection import DOCUMENTS_FOLDER, QUERIES_FILE
from jaxrank.data.collection_file import COLLECTION_FILE, CollectionFile, read_collection_file
from jaxrank.data.document_store.manifest import MANIFEST_FILE
from jaxrank.data.document_store.reading import Malformed
from jaxrank.data.document_store.store import DocumentStore
from jaxrank.data.document_store.writer import build_store
from jaxrank.data.document_text import DocumentText
from jaxrank.data.importing.layouts.beir import CORPUS_FILE
from jaxrank.data.importing.layouts.collection_source import (
    CollectionSource,
    Judgements,
    find_file,
    gather_queries,
)
from jaxrank.data.importing.layouts.msmarco import check_lookup
from jaxrank.data.importing.record import (
    RECORD_FILE,
    ImportRecord,
    ImportReport,
    SplitReport,
    file_states,
    read_record,
)
from jaxrank.data.jsonl_entries import check_id
from jaxrank.errors import InputError
from jaxrank.evaluation.qrels import Qrels
from jaxrank.files import atomic_open, check_target, file_digest
from jaxrank.progress import track

# How the names of files begin that a killed call was writing.
_LEFTOVERS = (".qrels.", *(f".{name}." for name in (QUERIES_FILE, COLLECTION_FILE, RECORD_FILE)))
_STORE_FILE = f"{DOCUMENTS_FOLDER}/{MANIFEST_FILE}"  # whose SHA-256 stands for all documents

MissingDocuments = Literal["count", "refuse"]
"""What becomes of judgements of documents that are not in the collection."""


class Imported(NamedTuple):
    """What an import came to."""

    report: ImportReport
    done: Literal["everything", "document_text", "nothing"]
    """What was to do: an earlier call may have done all, or all but the choice of the text."""


def import_collection(
    source: CollectionSource,
    output: str | Path,
    *,
    document_text: DocumentText | None = None,
    malformed: Malformed = "refuse",
    missing_documents: MissingDocuments = "count",
    verify: bool = False,
    progress: bool = False,
) -> Imported:
    """Write a collection folder, or see that an earlier call has written this very one.

    A killed call leaves a folder that `Collection.open` refuses; the same call goes on with it.

    Args:
        document_text: which fields become a document's text; None for the layout's choice.
        malformed: whether a line without a document is an error or passed over and counted.
        missing_documents: whether judgements of documents that are not there are kept and counted,
            or an error.
        verify: whether to compare every byte of the documents with its SHA-256 at the end; all
            else is compared in any case.

    Raises:
        InputError: naming file and line of what cannot be used, or files that are damaged.
    """
    output = Path(output)
    check_target(output, is_folder=True)
    if find_file(output, CORPUS_FILE):
        raise InputError(f"{output}: holds {CORPUS_FILE} already; import into another folder")
    choices = CollectionFile(document_text or source.document_text, source.layout)
    inputs = _inputs(source, malformed)
    earlier = read_record(output)
    if earlier is not None and earlier.inputs == inputs and earlier.is_whole(output):
        DocumentStore.open(output / DOCUMENTS_FOLDER, verify=verify)  # sizes in any case
        if missing_documents == "refuse":
            earlier.report.check_missing()
        if read_collection_file(output) == choices:
            return Imported(earlier.report, "nothing")
        choices.write(output)
        return Imported(earlier.report, "document_text")
    begin = perf_counter()
    # Before the documents, which may take an hour: these are small, and likelier to be wrong.
    queries = gather_queries(source.queries)
    judgements = {split: read() for split, read in source.qrels.items()}
    qrels = {split: judged.qrels for split, judged in judgements.items()}
    _check(source, queries, qrels)
    store = _store_documents(source, output, inputs, earlier, progress=progress)
    splits = {
        split: _describe_split(split, judged, store, progress=progress)
        for split, judged in judgements.items()
    }
    report = _describe(source, store, queries, splits, perf_counter() - begin)
    if missing_documents == "refuse":
        report.check_missing()
    if verify:
        store.verify()
    names = _write_folder(output, queries, qrels, choices, earlier)
    outputs = {name: file_digest(output / name) for name in names}
    report = replace(report, seconds=perf_counter() - begin)
    ImportRecord(inputs, outputs, report).write(output)
    return Imported(report, "everything")


def _inputs(source: CollectionSource, malformed: Malformed) -> dict[str, Any]:
    """What the folder's content depends on, without reading the files."""
    return {
        "layout": source.layout,
        "documents": source.documents.kind,
        "datasets": list(source.datasets),
        "splits": list(source.qrels),
        "malformed": malformed,
        "files": file_states(source.files),
    }


def _check(source: CollectionSource, queries: dict[str, str], qrels: dict[str, Qrels]) -> None:
    """Refuse a source without queries, judgements without texts, and ids that no file can hold."""
    if not queries:
        notes = "".join(f"; {note}" for note in source.notes)
        raise InputError(f"{source.documents.name}: no queries go with it{notes}")
    for split, judged in qrels.items():
        unknown = [query_id for query_id in judged if query_id not in queries]
        if unknown:
            raise InputError(
                f"split {split}: {len(unknown)} of {len(judged)} judged queries have no text, "
                f"first {unknown[0]!r}; the files of its queries and judgements do not belong "
                "together"
            )
        for grades in judged.values():
            for document_id in grades:
                check_id(document_id, f"split {split}: document")


def _store_documents(
    source: CollectionSource,
    output: Path,
    inputs: dict[str, Any],
    earlier: ImportRecord | None,
    *,
    progress: bool,
) -> DocumentStore:
    """Build the store or go on with it; one that is complete is not read again without need."""
    folder = output / DOCUMENTS_FOLDER
    is_built = (
        earlier is not None
        and _documents_state(earlier.inputs, source) == _documents_state(inputs, source)
        and earlier.holds(output, _STORE_FILE)
    )
    if not is_built:
        build_store(folder, source.documents, malformed=inputs["malformed"], progress=progress)
    store = DocumentStore.open(folder)
    if source.lookup is not None:
        check_lookup(source.lookup, store, progress=progress)
    return store


def _documents_state(inputs: dict[str, Any], source: CollectionSource) -> list[Any]:
    """The part of an import's inputs that its documents depend on."""
    name = source.files[0].name if source.files else None
    return [inputs["documents"], inputs["malformed"], inputs["files"].get(name)]


def _write_folder(
    output: Path,
    queries: dict[str, str],
    qrels: dict[str, Qrels],
    choices: CollectionFile,
    earlier: ImportRecord | None,
) -> list[str]:
    """Write all but the documents; the names of the files that the folder needs.

    Without queries a folder cannot be opened: an earlier call's go first, and the new come last.
    The earlier record says which splits' files are to go, so it goes after them, before any write.
    """
    (output / QUERIES_FILE).unlink(missing_ok=True)
    for path in output.glob(".*.part"):  # of a killed call
        if path.name.startswith(_LEFTOVERS):
            path.unlink()
    names = [f"qrels.{split}.txt" for split in qrels]
    for name in earlier.outputs if earlier else ():
        if name.startswith("qrels.") and name not in names:
            (output / name).unlink(missing_ok=True)
    (output / RECORD_FILE).unlink(missing_ok=True)
    for name, judged in zip(names, qrels.values(), strict=True):
        with atomic_open(output / name) as file:
            for query_id, grades in judged.items():
                for document_id, grade in grades.items():
                    file.write(f"{query_id} 0 {document_id} {grade}\n")
    choices.write(output)
    with atomic_open(output / QUERIES_FILE) as file:
        for query_id, text in queries.items():
            file.write(json.dumps({"_id": query_id, "text": text}, ensure_ascii=False) + "\n")
    return [QUERIES_FILE, *names, _STORE_FILE]


def _describe_split(
    split: str, judged: Judgements, store: DocumentStore, *, progress: bool
) -> SplitReport:
    """Count the judgements of a split, and those of documents that are not there."""
    names = [name for grades in judged.qrels.values() for name in grades]
    missing = [
        name
        for name in track(
            names, description=f"checking {split}", unit="judgement", enabled=progress
        )
        if name not in store
    ]
    return SplitReport(
        queries=len(judged.qrels),
        judgements=len(names),
        missing=len(missing),
        first_missing=missing[0] if missing else None,
        repeated=judged.repeated,
    )


def _describe(
    source: CollectionSource,
    store: DocumentStore,
    queries: dict[str, str],
    splits: dict[str, SplitReport],
    seconds: float,
) -> ImportReport:
    reached = store.manifest.reached
    return ImportReport(
        source=source.documents.name,
        documents=reached.documents,
        empty_titles=reached.empty_titles,
        empty_bodies=reached.empty_bodies,
        malformed=reached.malformed,
        first_malformed=reached.first_malformed,
        source_bytes=reached.num_bytes,
        stored_bytes=sum(file.size for file in store.manifest.files),
        queries=len(queries),
        splits=splits,
        notes=source.notes,
        seconds=seconds,
    )
