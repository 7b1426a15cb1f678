"""Documents' states, wherever they are: found by id, gathered for scoring."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from jaxrank.errors import InputError
from jaxrank.ranking.document_states.formats import StateDType, stored_arrays, stored_bytes
from jaxrank.ranking.document_states.identity import StateIdentity
from jaxrank.ranking.document_states.records import Gathered, Record

if TYPE_CHECKING:
    from jaxrank.ranking.document_states.disk.store import StateStore

_ALIGNMENT = 64  # bytes, of XLA's arrays on a CPU


class DocumentStates(ABC):
    """Document id -> state. Reading is safe from several threads.

    Attributes:
        identity: what the states were made for.
        dtype: what they are kept in.
        computed_in: what the model computed in when it made them, e.g. "float32".
        where: what messages call them.
    """

    identity: StateIdentity
    dtype: StateDType
    computed_in: str
    where: str

    @property
    @abstractmethod
    def document_ids(self) -> Sequence[str]:
        """All ids, in the order in which the documents came."""

    @abstractmethod
    def __contains__(self, document_id: object) -> bool:
        """Whether there is a state of the document."""

    @abstractmethod
    def visit(self, document_ids: Sequence[str], use: Callable[[int, Record], None]) -> None:
        """Call `use(position, record)` for each document, from several threads, in any order.

        A record is not to be written to. It may be a view of a file, which stays open for as long
        as the view is kept.

        Raises:
            InputError: naming a document of which there is no state, or a damaged one.
        """

    def records(self, document_ids: Sequence[str]) -> list[Record]:
        """States as they are kept, in the order asked for; not to be written to.

        Raises:
            InputError: as of `visit`.
        """
        found: dict[int, Record] = {}

        def copy(position: int, record: Record) -> None:
            arrays = {name: np.array(array) for name, array in record.arrays.items()}
            found[position] = record._replace(arrays=arrays)

        self.visit(document_ids, copy)
        return [found[position] for position in range(len(document_ids))]

    def lengths(self, document_ids: Sequence[str]) -> np.ndarray:
        """Tokens that were read of each document, int32 (n,).

        Raises:
            InputError: naming a document of which there is no state.
        """
        return np.array([record.length for record in self.records(document_ids)], np.int32)

    def text_hashes(self, document_ids: Sequence[str]) -> np.ndarray:
        """`hash_text` of the text that each state is of, uint64 (n,); 0 where it is not known.

        Raises:
            InputError: naming a document of which there is no state.
        """
        return np.array([record.text_hash for record in self.records(document_ids)], np.uint64)

    def __len__(self) -> int:
        return len(self.document_ids)

    @property
    def version(self) -> int:
        """Another number whenever states that were there are gone, or perhaps others."""
        return 0

    @property
    def nbytes(self) -> int:
        """Bytes of all states."""
        of_none = stored_bytes(self.identity.arrays, self.dtype, 0)
        of_token = stored_bytes(self.identity.arrays, self.dtype, 1) - of_none
        num_tokens = int(self.lengths(self.document_ids).sum(dtype=np.int64)) if of_token else 0
        return of_none * len(self) + of_token * num_tokens

    def missing(self, document_ids: Sequence[str]) -> list[str]:
        """Those of which there is no state, each once, in their order."""
        return [
            document_id for document_id in dict.fromkeys(document_ids) if document_id not in self
        ]

    def select(self, document_ids: Sequence[str]) -> "DocumentStates":
        """A view of these documents in this order, e.g. of one query's candidates.

        Raises:
            InputError: naming a document of which there is no state.
            ValueError: something that is no list of ids.
        """
        if isinstance(document_ids, str):
            raise ValueError(f"document_ids: got one id, {document_ids!r:.80}; a list is needed")
        for document_id in document_ids:
            if not isinstance(document_id, str):
                raise ValueError(f"document_ids: got {document_id!r:.80}; ids are texts")
        return _SelectedStates(self, document_ids)

    def gather(
        self, document_ids: Sequence[str], *, rows: int | None = None, tokens: int | None = None
    ) -> Gathered:
        """The states of candidates side by side.

        Args:
            rows: how many there are to be, with rows of zeros behind the documents'; by default as
                many as documents.
            tokens: to how many arrays per token are padded; by default the longest document's.

        Raises:
            InputError: naming a document of which there is no state, or a damaged one.
            ValueError: too few rows or tokens.
        """
        num_documents = len(document_ids)
        rows = num_documents if rows is None else rows
        if rows < num_documents:
            raise ValueError(f"rows: got {rows}; there are {num_documents} documents")
        stored = stored_arrays(self.identity.arrays, self.dtype)
        if tokens is None and any(array.per_token for array in stored):
            tokens = int(self.lengths(document_ids).max(initial=0))
        lengths = np.zeros(rows, np.int32)
        buffers: dict[str, np.ndarray] = {}
        for array in stored:
            layers, *rest = array.shape_at(tokens or 0)
            buffers[array.name] = _aligned((layers, rows, *rest), array.dtype)
            buffers[array.name][:, num_documents:] = np.zeros((), array.dtype)

        def copy(row: int, record: Record) -> None:
            if tokens is not None and record.length > tokens:
                raise ValueError(
                    f"tokens: got {tokens}; document {record.document_id!r} has {record.length}"
                )
            lengths[row] = record.length
            for name, array in record.arrays.items():
                _copy(array, buffers[name][:, row])

        self.visit(document_ids, copy)
        return Gathered(buffers, lengths)

    @staticmethod
    def open(
        folder: str | Path, *, made_for: StateIdentity | None = None, verify: bool = True
    ) -> "StateStore":
        """Open states on disk; see `StateStore.open`."""
        # Late: a store is one kind of states. Who reads states need not know where they lie.
        from jaxrank.ranking.document_states.disk.store import StateStore

        return StateStore.open(folder, made_for=made_for, verify=verify)

    def _stand_for(self, states: "DocumentStates") -> None:
        """Take over what `states` are, to hand them on."""
        self.identity, self.dtype = states.identity, states.dtype
        self.computed_in, self.where = states.computed_in, states.where

    def _refuse_missing(self, document_id: str) -> InputError:
        return InputError(
            f"{self.where}: no state of document {document_id!r}; it is to be encoded first"
        )


class _SelectedStates(DocumentStates):
    """Some documents of others' states, in an order of their own."""

    def __init__(self, states: DocumentStates, document_ids: Sequence[str]) -> None:
        self._stand_for(states)
        self._states = states
        self._document_ids = list(document_ids)
        self._known = frozenset(self._document_ids)
        states.lengths(self._document_ids)  # names what is not there

    @property
    def document_ids(self) -> Sequence[str]:
        return self._document_ids

    @property
    def version(self) -> int:
        return self._states.version

    def __contains__(self, document_id: object) -> bool:
        return document_id in self._known and document_id in self._states

    def visit(self, document_ids: Sequence[str], use: Callable[[int, Record], None]) -> None:
        self._check_known(document_ids)
        self._states.visit(document_ids, use)

    def records(self, document_ids: Sequence[str]) -> list[Record]:
        self._check_known(document_ids)
        return self._states.records(document_ids)

    def lengths(self, document_ids: Sequence[str]) -> np.ndarray:
        self._check_known(document_ids)
        return self._states.lengths(document_ids)

    def text_hashes(self, document_ids: Sequence[str]) -> np.ndarray:
        self._check_known(document_ids)
        return self._states.text_hashes(document_ids)

    def _check_known(self, document_ids: Sequence[str]) -> None:
        for document_id in document_ids:
            if document_id not in self._known:
                raise self._refuse_missing(document_id)


def _aligned(shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    """An array with any content that `jax.device_put` takes over on a CPU without copying it."""
    num_bytes = prod(shape) * dtype.itemsize
    memory = np.empty(num_bytes + _ALIGNMENT, np.uint8)
    start = -memory.ctypes.data % _ALIGNMENT
    return memory[start : start + num_bytes].view(dtype).reshape(shape)


def _copy(array: np.ndarray, target: np.ndarray) -> None:
    """Copy a document's array into its row, with zeros behind its tokens.

    As integers of the same size: numpy copies types that are not its own, as bfloat16, one by one.
    """
    bits = f"u{array.itemsize}"
    target = target.view(bits)
    if array.shape == target.shape:
        target[...] = array.view(bits)
    else:
        length = array.shape[1]
        target[:, :length] = array.view(bits)
        target[:, length:] = 0
