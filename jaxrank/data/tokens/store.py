"""A folder that keeps the ids of texts on disk, so that no text is ever tokenised twice.

    query-<key>/       manifest.json  shard-00000.arrow  shard-00001.arrow ...
    document-<key>/    the same

The key stands for all that ids depend on besides a text's name: the tokenizer, the template's
literal text before the field, max_length, and where the texts come from. What is asked for and is
not there is tokenised and appended, a shard at a time, so that an interruption costs one shard's
work at most. A writer holds a lock on the folder, and others wait for it; readers need none, since
a shard never changes and the manifest is replaced as a whole.

The SHA-256 of every shard is checked when a folder is opened. A shard that is missing or differs is
left out, so that its texts are tokenised again, and that is reported.
"""

import json
import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import Any, NamedTuple

from jaxrank.data.groups import Group
from jaxrank.data.tokens.shard import TokenShard, open_shard, write_shard
from jaxrank.data.tokens.stored import StoredTokens
from jaxrank.data.tokens.table import GroupTokens, TokenColumns, named_texts
from jaxrank.errors import InputError
from jaxrank.files import atomic_open, exclusive, file_digest, read_json
from jaxrank.progress import track
from jaxrank.text.templates import Field
from jaxrank.text.tokenize import PairTokenizer

MANIFEST_FILE = "manifest.json"
LOCK_FILE = "lock"

_FORMAT = 1
_TEXTS_PER_SHARD = 32_768
_TOKENS_PER_SHARD = 2**25  # bounds the memory that a shard of long texts takes to write
_SHOWN_DIGITS = 16

_log = logging.getLogger(__name__)


class Filled(NamedTuple):
    """The texts of one field, and what it took to have them."""

    tokens: StoredTokens
    num_new: int
    """Texts tokenised now."""
    notes: tuple[str, ...]
    """About damaged shards, for the user."""


def open_token_store(
    folder: str | Path,
    groups: Iterable[Group],
    queries: Mapping[str, str],
    documents: Mapping[str, str],
    tokenizer: PairTokenizer,
    *,
    sources: Mapping[Field, str],
    progress: bool = False,
) -> tuple[GroupTokens, tuple[str, ...]]:
    """The ids of every query and document that the groups name, tokenising what is not there.

    Args:
        queries: query id -> text; asked only for what is not there.
        documents: document id -> text; likewise.
        sources: digests of where queries and documents come from. Ids are names only within one
            collection, so another collection's texts, or other fields of them, need another digest.
        progress: whether to draw bars.

    Returns:
        The store, and lines for the user: what came from where, and damage.

    Raises:
        InputError: naming a manifest that cannot be read.
    """
    folder = Path(folder)
    names = named_texts(groups)
    of_field: Mapping[Field, Mapping[str, str]] = {"query": queries, "document": documents}
    filled = {
        field: fill_tokens(
            folder,
            field,
            names[field],
            texts,
            tokenizer,
            source=sources[field],
            progress=progress,
        )
        for field, texts in of_field.items()
    }
    store = GroupTokens(filled["query"].tokens, filled["document"].tokens)
    num_new = sum(part.num_new for part in filled.values())
    num_texts = sum(map(len, names.values()))
    size = (store.queries.num_bytes + store.documents.num_bytes) / 2**20
    summary = (
        f"token store {folder}: {len(names['query']):,} queries and {len(names['document']):,} "
        f"documents, {num_texts - num_new:,} of them from disk and {num_new:,} tokenised now; it "
        f"holds {store.num_tokens / 1e6:,.1f} M tokens, {size:,.0f} MiB"
    )
    return store, (summary, *filled["query"].notes, *filled["document"].notes)


def fill_tokens(
    folder: Path,
    field: Field,
    names: Sequence[str],
    texts: Mapping[str, str],
    tokenizer: PairTokenizer,
    *,
    source: str,
    progress: bool = False,
) -> Filled:
    """The ids of texts of one field; those that are not there are tokenised and kept.

    Args:
        names: of the texts, each once.
        texts: name -> text.
        source: digest of where the texts come from.

    Raises:
        KeyError: a name without a text.
        InputError: naming a manifest that cannot be read.
    """
    about = {"field": field, "tokens": tokenizer.digest(field), "texts": source}
    key = sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()[:_SHOWN_DIGITS]
    shards = _Shards(folder / f"{field}-{key}", about)
    missing = shards.open(progress=progress).missing(names)
    num_new = 0
    if missing or shards.damaged:
        wait = partial(
            _log.warning, "%s: another process tokenises into it; waiting for it", shards.folder
        )
        with exclusive(shards.folder / LOCK_FILE, when_taken=wait):
            # Another writer may have been here while we waited.
            missing = shards.open(progress=progress).missing(names)
            num_new = len(missing)
            shards.clean_up()
            _append(shards, field, missing, texts, tokenizer, progress=progress)
    tokens = shards.open()
    if shards.damaged:
        raise InputError(f"{shards.folder}: what was just written reads otherwise; check the disk")
    return Filled(tokens, num_new, shards.notes)


def _append(
    shards: "_Shards",
    field: Field,
    names: Sequence[str],
    texts: Mapping[str, str],
    tokenizer: PairTokenizer,
    *,
    progress: bool,
) -> None:
    """Tokenise texts and write them, a shard at a time."""
    tokenized = track(
        tokenizer.tokenise(field, (texts[name] for name in names)),
        description="pretokenising",
        unit=field,
        enabled=progress,
        total=len(names),
    )
    columns = TokenColumns(tokenizer.vocabulary_size)
    start = 0
    for end, text in enumerate(tokenized, start=1):
        columns.append(text)
        is_full = len(columns) >= _TEXTS_PER_SHARD or columns.num_tokens >= _TOKENS_PER_SHARD
        if is_full or end == len(names):
            shards.append(names[start:end], columns)
            columns, start = TokenColumns(tokenizer.vocabulary_size), end


@dataclass(frozen=True)
class _Entry:
    """A shard as the manifest has it."""

    number: int
    texts: int
    tokens: int
    sha256: str


class _Shards:
    """The manifest of a folder and its shards, each of which is checked once."""

    def __init__(self, folder: Path, about: Mapping[str, str]) -> None:
        self.folder = folder
        self.damaged: set[_Entry] = set()
        self._dropped: set[_Entry] = set()
        self._about = dict(about)
        self._checked: dict[_Entry, TokenShard] = {}

    @property
    def notes(self) -> tuple[str, ...]:
        """What was damaged and dropped, for the user."""
        return tuple(
            f"{self.folder / _shard_name(entry.number)}: damaged or missing; of its "
            f"{entry.texts:,} texts those asked for are tokenised anew"
            for entry in sorted(self._dropped, key=lambda entry: entry.number)
        )

    def open(self, *, progress: bool = False) -> StoredTokens:
        """All texts of the shards that are as they were written; says which are `damaged`."""
        self.damaged = set()
        entries = track(
            self._read_manifest(),
            description=f"checking {self.folder.name}",
            unit="shard",
            enabled=progress,
        )
        shards = (self._check(entry) for entry in entries)
        return StoredTokens([shard for shard in shards if shard is not None])

    def append(self, names: Sequence[str], columns: TokenColumns) -> None:
        """Write a shard; needs the lock."""
        entries = self._read_manifest()
        number = 1 + max((entry.number for entry in entries), default=-1)
        path = self.folder / _shard_name(number)
        digest = write_shard(path, names, columns)
        entry = _Entry(number, len(names), columns.num_tokens, digest)
        self._write_manifest([*entries, entry])

    def clean_up(self) -> None:
        """Drop damaged shards, and what a killed writer left; needs the lock."""
        for leftover in self.folder.glob(".*.part"):
            leftover.unlink()
        entries = self._read_manifest()
        if self.damaged:
            self._write_manifest([entry for entry in entries if entry not in self.damaged])
        for entry in self.damaged:
            (self.folder / _shard_name(entry.number)).unlink(missing_ok=True)
        self._dropped |= self.damaged

    def _check(self, entry: _Entry) -> TokenShard | None:
        path = self.folder / _shard_name(entry.number)
        if entry not in self._checked:
            if path.is_file() and file_digest(path) == entry.sha256:
                self._checked[entry] = open_shard(path)
            else:
                self.damaged.add(entry)
        return self._checked.get(entry)

    def _read_manifest(self) -> list[_Entry]:
        path = self.folder / MANIFEST_FILE
        if not path.exists():
            return []
        try:
            content = read_json(path)
            if (content["format"], content["about"]) != (_FORMAT, self._about):
                raise ValueError
            return [_Entry(**entry) for entry in content["shards"]]
        except (InputError, KeyError, TypeError, ValueError):
            raise InputError(
                f"{path}: not the manifest of a token store of format {_FORMAT}; delete "
                f"{self.folder} and its texts are tokenised anew"
            ) from None

    def _write_manifest(self, entries: Sequence[_Entry]) -> None:
        content: dict[str, Any] = {"format": _FORMAT, "about": self._about}
        with atomic_open(self.folder / MANIFEST_FILE) as file:
            json.dump(content | {"shards": [asdict(entry) for entry in entries]}, file, indent=1)
            file.write("\n")


def _shard_name(number: int) -> str:
    return f"shard-{number:05}.arrow"
