"""Documents' states on disk, for collections whose states no memory holds.

A folder:

    manifest.json                    what the states were made for, and the shards with SHA-256
    manifest.copy.json               the same, for when the first is damaged
    shard-00000.safetensors, ...     ids and states, about 256 MiB each, memory-mapped when read

A shard never changes, and the manifest is replaced as a whole: readers need no lock, go on while
others write, and see the store as it was when they opened it. Writers hold a lock, for which others
wait. What a killed writer leaves is no part of the store, and the next writer clears it away.
"""

import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from itertools import islice
from pathlib import Path

import numpy as np

from jaxrank.errors import InputError
from jaxrank.ranking.document_states.disk.folder import clean_up, locked
from jaxrank.ranking.document_states.disk.index import DocumentIndex, StoredIds
from jaxrank.ranking.document_states.disk.manifest import read_manifest
from jaxrank.ranking.document_states.disk.opening import (
    begin_or_go_on,
    begin_store,
    empty_manifest,
    leave_out_lost,
)
from jaxrank.ranking.document_states.disk.reading import ShardReader, Snapshot, read_snapshot
from jaxrank.ranking.document_states.disk.verification import Fault, find_faults
from jaxrank.ranking.document_states.disk.writing import append_shard, remove_rows
from jaxrank.ranking.document_states.formats import StateDType
from jaxrank.ranking.document_states.identity import StateIdentity
from jaxrank.ranking.document_states.records import Record
from jaxrank.ranking.document_states.states import DocumentStates


class StateStore(DocumentStates):
    """States in a folder; safe from several threads and processes, of which one writes at a time.

    `create`, `open` and `open_or_create` give one. It may be sent to another process, which opens
    it again.

    Attributes:
        folder: where it lies.
    """

    def __init__(self, folder: Path, snapshot: Snapshot, *, verify: bool) -> None:
        manifest = snapshot.manifest
        self.folder = folder
        self.where = str(folder)
        self.identity, self.dtype = manifest.identity, manifest.dtype
        self.computed_in = manifest.computed_in
        self._snapshot = snapshot
        self._version = 0
        self._verify = verify
        self._reader = ShardReader(folder, manifest, verify=verify)
        self._writer = threading.RLock()
        self._is_writing = False

    @classmethod
    def create(
        cls,
        folder: str | Path,
        identity: StateIdentity,
        dtype: StateDType,
        computed_in: str,
        *,
        documents_per_shard: int | None = None,
        verify: bool = True,
    ) -> "StateStore":
        """Make an empty store.

        Args:
            identity: what its states will be made for.
            dtype: what they will be kept in.
            computed_in: what the model that makes them computes in, e.g. "float32".
            documents_per_shard: by default as many as take about 256 MiB.

        Raises:
            InputError: there is a store, or something else, in the folder.
        """
        folder = Path(folder)
        begin_store(folder, empty_manifest(identity, dtype, computed_in, documents_per_shard))
        return cls.open(folder, verify=verify)

    @classmethod
    def open(
        cls, folder: str | Path, *, made_for: StateIdentity | None = None, verify: bool = True
    ) -> "StateStore":
        """Open a store.

        Args:
            made_for: what its states are to be made for, e.g. `Reranker.state_identity()`; None:
                whatever they are.
            verify: whether every state that is read is compared with its checksum.

        Raises:
            InputError: its states were made for another model, template or budget, by what differs;
                there is no store, it is of another format, or a file of it is missing, cut or
                damaged in its index.
        """
        folder = Path(folder)
        snapshot = read_snapshot(folder)
        if made_for is not None:
            snapshot.manifest.identity.check_same(made_for, where=str(folder))
        return cls(folder, snapshot, verify=verify)

    @classmethod
    def open_or_create(
        cls,
        folder: str | Path,
        identity: StateIdentity,
        dtype: StateDType,
        computed_in: str,
        *,
        documents_per_shard: int | None = None,
        mend: bool = False,
        verify: bool = True,
    ) -> "StateStore":
        """Open a store to go on with it, or make an empty one where there is none.

        Args:
            mend: whether shards that are missing, cut or damaged in their index are left out for
                good, with a warning; their documents are `missing` then. What else is damaged
                `verify` finds.

        Raises:
            InputError: its states were made for another identity, or are kept or computed in
                something else; something else is in the folder; or, unless `mend`, naming the
                shards that are missing, cut or damaged in their index.
        """
        folder = Path(folder)
        wanted = empty_manifest(identity, dtype, computed_in, documents_per_shard)
        snapshot = begin_or_go_on(folder, wanted, mend=mend)
        return cls(folder, snapshot, verify=verify)

    @staticmethod
    def mend(folder: str | Path) -> int:
        """Leave lost shards out as `open_or_create` does; return how many documents they had.

        A damaged manifest is written anew from its copy.
        """
        return leave_out_lost(Path(folder))

    @property
    def documents_per_shard(self) -> int:
        """Documents of a shard: those of one call are to be encoded and appended together."""
        return self._snapshot.manifest.documents_per_shard

    @property
    def document_ids(self) -> Sequence[str]:
        """All ids, in the order in which they were appended."""
        return StoredIds(self._snapshot.index)

    def __len__(self) -> int:
        return len(self._snapshot.index)

    def __contains__(self, document_id: object) -> bool:
        return isinstance(document_id, str) and not self.missing([document_id])

    def missing(self, document_ids: Sequence[str]) -> list[str]:
        """Those of which there is no state, each once, in their order."""
        unique = list(dict.fromkeys(document_ids))
        rows = self._snapshot.index.find(unique)
        return [unique[position] for position in np.flatnonzero(rows < 0).tolist()]

    def lengths(self, document_ids: Sequence[str]) -> np.ndarray:
        """Tokens that were read of each document, int32 (n,); no state is read."""
        index = self._snapshot.index
        return index.columns.lengths[self._rows(index, document_ids)]

    def text_hashes(self, document_ids: Sequence[str]) -> np.ndarray:
        """`hash_text` of each document's text, uint64 (n,), 0 if not known; no state is read."""
        index = self._snapshot.index
        return index.columns.text_hashes[self._rows(index, document_ids)]

    @property
    def nbytes(self) -> int:
        """Bytes of all states, without their ids."""
        return self._snapshot.manifest.nbytes

    @property
    def version(self) -> int:
        """Another number after a deletion, by this store or by another that `refresh` has seen."""
        return self._version

    def visit(self, document_ids: Sequence[str], use: Callable[[int, Record], None]) -> None:
        """As of any states; records are views of the files."""
        while True:
            snapshot = self._snapshot
            try:
                self._reader.visit(snapshot, self._rows(snapshot.index, document_ids), use)
                return
            except InputError:
                # Another thread may have written their shards anew meanwhile.
                if snapshot is self._snapshot:
                    raise

    def append(self, records: Iterable[Record]) -> None:
        """Add documents, in shards of `documents_per_shard`, each of which is whole or not there.

        Raises:
            InputError: a document that is there already, one longer than the budget, or a state
                that is not finite; the shards before its own are in.
            ValueError: a record of other arrays than the store has.
        """
        with self.writing():
            remaining = iter(records)
            while shard := list(islice(remaining, self.documents_per_shard)):
                self._snapshot = append_shard(self.folder, self._snapshot, shard)

    def delete(self, document_ids: Sequence[str]) -> None:
        """Take documents out, and give their space back.

        Shards that they were in are written anew under other names. Readers that use the old ones
        go on with them; those that first come to them later are told to open the store again.

        Raises:
            InputError: naming a document of which there is no state.
        """
        with self.writing():
            rows = np.unique(self._rows(self._snapshot.index, document_ids))
            remove_rows(self.folder, self._snapshot, rows)
            self._see(read_snapshot(self.folder))
            self._reader.close()
            clean_up(self.folder, self._snapshot.manifest)

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Let no other write in the block; waits, with a warning, while another does.

        `append` and `delete` hold the lock by themselves. Those who ask what is `missing` first,
        hold it from there on.
        """
        with self._writer:
            if self._is_writing:
                yield
                return
            with locked(self.folder):
                self.refresh()  # another may have written while we waited
                clean_up(self.folder, self._snapshot.manifest)
                self._is_writing = True
                try:
                    yield
                except BaseException:
                    with suppress(InputError, OSError):  # what went wrong first is to be told
                        clean_up(self.folder, read_manifest(self.folder))
                    raise
                finally:
                    self._is_writing = False

    def refresh(self) -> None:
        """See what was written since the store was opened.

        Raises:
            InputError: as of `open`, or it has become a store of something else.
        """
        manifest = read_manifest(self.folder)
        if manifest == self._snapshot.manifest:
            return
        manifest.identity.check_same(self.identity, where=self.where)
        if (manifest.dtype, manifest.computed_in) != (self.dtype, self.computed_in):
            raise InputError(
                f"{self.folder}: holds states in {manifest.dtype} computed in "
                f"{manifest.computed_in} by now, not {self.dtype} computed in {self.computed_in} "
                "as when it was opened; open it again"
            )
        self._see(read_snapshot(self.folder))

    def verify(self, *, progress: bool = False) -> list[Fault]:
        """Read every byte of the folder's store, and list all that is not as it was written.

        Args:
            progress: whether to draw a bar.
        """
        return find_faults(self.folder, progress=progress)

    def __reduce__(self) -> tuple[object, ...]:
        return partial(StateStore.open, verify=self._verify), (self.folder,)

    def _see(self, snapshot: Snapshot) -> None:
        """Go over to the store as it is later."""
        there = set(snapshot.manifest.shards)
        is_larger = there.issuperset(self._snapshot.manifest.shards)
        self._snapshot = snapshot
        # Last: who has seen this version is to find no state of before.
        self._version += not is_larger

    def _rows(self, index: DocumentIndex, document_ids: Sequence[str]) -> np.ndarray:
        rows = index.find(document_ids)
        if len(rows) and rows.min() < 0:
            raise self._refuse_missing(document_ids[int(rows.argmin())])
        return rows
