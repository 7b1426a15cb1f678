"""Collection folders: documents read by id from disk, queries, and where the judgements are.

A folder holds documents as `corpus.jsonl` ({"_id", "text"}, perhaps "title" and "url") or as a
document store in `documents/`; `queries.jsonl` ({"_id", "text"}), plain or gzip; and, for each
split, `qrels.<split>.txt` (TREC) or `qrels/<split>.tsv` (BEIR). `collection.json` may choose the
documents' text.
"""

from fnmatch import fnmatch
from pathlib import Path

from jaxrank.data.collection_file import COLLECTION_FILE, read_collection_file
from jaxrank.data.document_store.manifest import MANIFEST_FILE
from jaxrank.data.document_store.store import DocumentStore
from jaxrank.data.document_text import DocumentText
from jaxrank.data.documents import DEFAULT_DOCUMENT_TEXT, Documents, JsonlDocuments
from jaxrank.data.jsonl_entries import check_entry
from jaxrank.errors import InputError
from jaxrank.evaluation.qrels import Qrels, read_qrels
from jaxrank.files import check_apart, file_digest, read_jsonl

DOCUMENTS_FOLDER = "documents"
QUERIES_FILE = "queries.jsonl"

_CORPUS_FILE = "corpus.jsonl"

# What a folder is read by; the last is an import's record.
_OWN_NAMES = (
    _CORPUS_FILE, f"{_CORPUS_FILE}.gz", DOCUMENTS_FOLDER, QUERIES_FILE, f"{QUERIES_FILE}.gz",
    "qrels.*.txt", "qrels", COLLECTION_FILE, "import.json",
)  # fmt: skip


class Collection:
    """Documents, queries and judgements of one folder.

    Attributes:
        folder: where it lies.
        documents: document id -> text, read when asked for, in the order of the file.
        queries: query id -> text, of all splits.
    """

    def __init__(self, folder: Path, documents: Documents, queries: dict[str, str]) -> None:
        self.folder = folder
        self.documents = documents
        self.queries = queries

    @classmethod
    def open(
        cls,
        folder: str | Path,
        *,
        document_text: DocumentText | None = None,
        progress: bool = False,
    ) -> "Collection":
        """Index a collection folder.

        Args:
            document_text: which fields become a document's text; None for the collection's own
                choice, which is title-body where it makes none.

        Raises:
            InputError: naming what was looked for, or file and line of what cannot be read.
        """
        folder = Path(folder)
        if not folder.is_dir():
            found = "a collection folder is needed, this is a file"
            raise InputError(
                f"{folder}: {found if folder.exists() else 'no such folder; a collection is one'}"
            )
        how = document_text or read_collection_file(folder).document_text or DEFAULT_DOCUMENT_TEXT
        documents = _open_documents(folder, how, progress=progress)
        return cls(folder, documents, read_queries(queries_path(folder)))

    @property
    def splits(self) -> list[str]:
        """Names of the splits that have judgements."""
        trec = [path.name.split(".", 1)[1][: -len(".txt")] for path in self._qrels_files("txt")]
        beir = [path.stem for path in self._qrels_files("tsv")]
        return sorted({*trec, *beir})

    def qrels_path(self, split: str) -> Path:
        """The judgements' file of a split.

        Raises:
            InputError: there is none; the message names what was looked for and the splits there.
        """
        found = find_qrels(self.folder, split)
        if found is not None:
            return found
        candidates = _qrels_names(split)
        there = ", ".join(self.splits) or "none"
        raise InputError(
            f"split {split!r}: {self.folder} holds neither {' nor '.join(candidates)}; "
            f"splits there: {there}"
        )

    def qrels(self, split: str) -> Qrels:
        """Judgements of a split: query id -> document id -> grade.

        Raises:
            InputError: what `qrels_path` and `read_qrels` raise, and a judged query that
                queries.jsonl does not have.
        """
        path = self.qrels_path(split)
        qrels = read_qrels(path)
        unknown = [query_id for query_id in qrels if query_id not in self.queries]
        if unknown:
            raise InputError(
                f"{path}: {len(unknown)} of {len(qrels)} queries are not in "
                f"{queries_path(self.folder)}, first {unknown[0]!r}"
            )
        return qrels

    def split_queries(self, split: str) -> dict[str, str]:
        """Query id -> text of a split's judged queries, in the order of its judgements."""
        return {query_id: self.queries[query_id] for query_id in self.qrels(split)}

    def digest(self) -> dict[str, str]:
        """SHA-256 of each of the collection's files, by name inside the folder.

        Of a document store, that of its manifest, which holds those of its files.
        """
        paths = [self._documents_path, queries_path(self.folder)]
        if (self.folder / COLLECTION_FILE).exists():
            paths.append(self.folder / COLLECTION_FILE)
        paths += [*self._qrels_files("txt"), *self._qrels_files("tsv")]
        return {str(path.relative_to(self.folder)): file_digest(path) for path in paths}

    def documents_digest(self) -> str:
        """SHA-256 of the documents' file, or of their store's manifest.

        It says nothing of which fields are the text.
        """
        return file_digest(self._documents_path)

    def queries_digest(self) -> str:
        """SHA-256 of the queries' file."""
        return file_digest(queries_path(self.folder))

    @property
    def _documents_path(self) -> Path:
        """The file that tells one set of documents from another."""
        if isinstance(self.documents, DocumentStore):
            return self.folder / DOCUMENTS_FOLDER / MANIFEST_FILE
        return self.folder / _CORPUS_FILE

    def _qrels_files(self, kind: str) -> list[Path]:
        return sorted(self.folder.glob("qrels.*.txt" if kind == "txt" else "qrels/*.tsv"))


def _open_documents(folder: Path, document_text: DocumentText, *, progress: bool) -> Documents:
    """The documents of a folder, of the one kind that it holds."""
    store, corpus = folder / DOCUMENTS_FOLDER, folder / _CORPUS_FILE
    if store.is_dir() and corpus.exists():
        raise InputError(f"{folder}: holds both {store.name}/ and {corpus.name}; keep one of them")
    if store.is_dir():
        return DocumentStore.open(store, document_text=document_text)
    packed = folder / f"{_CORPUS_FILE}.gz"
    if not corpus.exists() and packed.exists():
        corpus = packed
    elif not corpus.is_file():
        raise InputError(
            f"{corpus}: no such file; a collection folder holds it, or {DOCUMENTS_FOLDER}/ from "
            "jaxrank.import_collection"
        )
    return JsonlDocuments(corpus, document_text=document_text, progress=progress)


def check_outside(path: Path, folder: Path | None, *, option: str = "--output") -> None:
    """Refuse an output under a name that the command's collection is read by.

    Anything else may be written into its folder.

    Args:
        folder: of the collection; None where there is none.
        option: that the output is given with.

    Raises:
        InputError: naming the path.
    """
    if folder is None:
        return
    own = [folder / name for name in _OWN_NAMES]
    if any(fnmatch(path.name, name) for name in _OWN_NAMES):
        own.append(folder / path.name)  # a new split's judgements too
    # Of those that are there, since a link leads elsewhere.
    own += [found for name in _OWN_NAMES for found in folder.glob(name)]
    check_apart(path, {"--collection": own}, option=option)


def find_documents(folder: Path) -> Path | None:
    """A collection folder's document store or corpus.jsonl; None if it has neither."""
    store, corpus = folder / DOCUMENTS_FOLDER, folder / _CORPUS_FILE
    return store if store.is_dir() else corpus if corpus.is_file() else None


def find_queries(folder: Path) -> Path | None:
    """A collection folder's queries, plain or gzip; None if there are none."""
    paths = (folder / QUERIES_FILE, folder / f"{QUERIES_FILE}.gz")
    return next((path for path in paths if path.is_file()), None)


def find_qrels(folder: Path, split: str) -> Path | None:
    """A split's judgements in a collection folder; None if there are none."""
    paths = (folder / name for name in _qrels_names(split))
    return next((path for path in paths if path.is_file()), None)


def _qrels_names(split: str) -> tuple[str, str]:
    """Where a split's judgements may be; an import writes the first."""
    return f"qrels.{split}.txt", f"qrels/{split}.tsv"


def queries_path(folder: Path) -> Path:
    """The queries' file, plain or gzip; where there is none, an InputError says what to do."""
    found = find_queries(folder)
    if found is not None:
        return found
    path = folder / QUERIES_FILE
    mend = "a collection folder holds it"
    if (folder / DOCUMENTS_FOLDER).is_dir():
        mend = "an import writes it last; run the same import again, which goes on"
    raise InputError(f"{path}: no such file; {mend}")


def read_queries(path: str | Path) -> dict[str, str]:
    """Query id -> text, from JSON lines {"_id", "text"}.

    Raises:
        InputError: naming file and line.
    """
    rows: dict[str, int] = {}
    texts = []
    for number, query in read_jsonl(path):
        where = f"{path}:{number}"
        check_entry(query, where)
        _add_row(rows, query["_id"], where)
        texts.append(query["text"])
    if not rows:
        raise InputError(f"{path}: no queries")
    return dict(zip(rows, texts, strict=True))


def _add_row(rows: dict[str, int], name: str, where: str) -> None:
    if name in rows:
        raise InputError(f"{where}: id {name!r} was there before; each id is needed once")
    rows[name] = len(rows)
