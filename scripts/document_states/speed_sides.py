"""What is timed at one length of documents: full passes, and scoring from states."""

from argparse import Namespace
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

from jaxrank.ranking.document_states.disk.store import StateStore
from jaxrank.ranking.document_states.encoding import DocumentEncoder
from jaxrank.ranking.document_states.formats import StateDType, stored_bytes
from jaxrank.ranking.document_states.records import Record
from jaxrank.ranking.document_states.scoring import StateScorer
from jaxrank.ranking.document_states.states import DocumentStates
from jaxrank.ranking.scoring import Scorer
from scripts.document_states.candidates import forget_files, in_memory, on_disk, read_documents
from scripts.document_states.random_models import QUERY_LENGTH, RandomModel
from scripts.document_states.speed_rows import Line, Place
from scripts.document_states.turns import Side
from scripts.scale.process import bytes_from_device

COPIES_HELD = 4
"""Of states in memory: where they are, gathered, on the device, and in float32."""


class Timed(NamedTuple):
    """A side with what its row says besides the time."""

    line: Line
    side: Side
    read: int
    measured: int
    note: str = ""
    share_from_device: Callable[[], float | None] = lambda: None
    """Once it was timed; see Row."""


class Subject:
    """A model, and how many of its states are timed where.

    Args:
        dtypes: of states in memory; none: full passes alone.
        disk_dtypes: of states on disk.
        whole_at: length at which full passes read all candidates, however many tokens these have;
            None: nowhere.
    """

    def __init__(
        self,
        preset: str,
        options: Namespace,
        *,
        dtypes: tuple[StateDType, ...] = (),
        disk_dtypes: tuple[StateDType, ...] = (),
        whole_at: int | None = None,
    ) -> None:
        self.preset = preset
        self.options = options
        self.dtypes, self.disk_dtypes = dtypes, disk_dtypes
        self.whole_at = whole_at
        longest = max(options.lengths)
        self.model = RandomModel(preset, longest, is_toy=options.toy)
        if self.model.positions is not None:
            longest = min(longest, self.model.positions - QUERY_LENGTH)
            self.model = RandomModel(preset, longest, is_toy=options.toy)

    def sides(self, length: int, folder: Path) -> Iterator[Timed]:
        """All that is timed of this model at that length."""
        if self.model.positions is None or length <= self.model.positions:
            yield self.full_pass(length)
        if length <= self.model.longest:
            for dtype in dict.fromkeys((*self.dtypes, *self.disk_dtypes)):
                yield from self._from_states(length, dtype, folder / f"{self.preset}-{dtype}")

    def full_pass(self, length: int) -> Timed:
        """All pairs of one query read anew, in whole batches padded to exactly their length."""
        options, total = self.options, length + self.options.query_tokens
        read = min(total, self.model.positions or total)
        measured = options.candidates
        if length != self.whole_at:
            measured = min(measured, max(1, options.full_tokens // read))
        rows = min(options.batch_size, measured)
        measured -= measured % rows
        scorer = Scorer(self.model.module, pad_token_id=0, max_length=read, batch_size=rows)
        pairs = self.model.pairs(measured, read)
        line = Line(self.preset, "full pass")
        note = f"{self.preset} reads {read} tokens: documents are cut" if read < total else ""
        return Timed(line, Side(str(line), lambda: scorer.score(pairs)), read, measured, note)

    def states_in_memory(self, length: int, dtype: StateDType) -> Timed:
        """Candidates from memory alone."""
        return self._in_memory(*read_documents(self.model, dtype, length), length)

    def _from_states(self, length: int, dtype: StateDType, folder: Path) -> Iterator[Timed]:
        encoder, records = read_documents(self.model, dtype, length)
        if dtype in self.dtypes:
            yield self._in_memory(encoder, records, length)
        if dtype in self.disk_dtypes:
            # A store each: pages that one of them has mapped are not dropped from memory.
            for name in ("warm", "cold"):
                on_disk(folder / name, encoder, records, self.options.candidates)
            warm, cold = _Opened(folder / "warm"), _Cold(folder / "cold")
            yield self._timed(warm, "page cache", dtype, self.options.candidates)
            timed = self._timed(cold, "disk", dtype, self.options.candidates)
            yield timed._replace(
                side=cold.read_anew(timed.side), share_from_device=cold.share_from_device
            )

    def _in_memory(self, encoder: DocumentEncoder, records: list[Record], length: int) -> Timed:
        each = COPIES_HELD * stored_bytes(encoder.specs, encoder.dtype, length)
        fitting = int(self.options.memory_gib * 2**30 // each)
        measured = min(self.options.candidates, fitting)
        held = _Held(in_memory(encoder, records, measured))
        return self._timed(held, "memory", encoder.dtype, measured)

    def _timed(
        self,
        source: "_Held | _Opened",
        place: Place,
        dtype: StateDType,
        measured: int,
    ) -> Timed:
        names = [f"d{n}" for n in range(measured)]
        line = Line(self.preset, place, dtype)
        side = Side(str(line), lambda: self._scorer.score(self._query, source.states, names))
        return Timed(line, side, self.options.query_tokens, measured)

    @cached_property
    def _scorer(self) -> StateScorer:
        return StateScorer(
            self.model.module,
            self.model.tokenizer,
            batch_size=self.options.candidates,
            identity=self.model.identity,
        )

    @cached_property
    def _query(self) -> str:
        return self.model.query(self.options.query_tokens)


class _Held:
    """States in memory."""

    def __init__(self, states: DocumentStates) -> None:
        self.states = states


class _Opened:
    """A store that is verified as it is read."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.states: DocumentStates | None = StateStore.open(folder, verify=True)


class _Cold(_Opened):
    """A store that is opened anew each time, and what each time came from the device."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self._shares: list[float] = []

    def read_anew(self, side: Side) -> Side:
        """The side, with nothing of the store's files in memory each time it begins."""

        def call() -> None:
            before = bytes_from_device()
            side.call()
            if before is not None and (after := bytes_from_device()) is not None:
                assert self.states is not None, "it was prepared"
                self._shares.append((after - before) / self.states.nbytes)

        return replace(side, call=call, prepare=self._open)

    def share_from_device(self) -> float | None:
        """Of the states' bytes, the least of all times; None where the kernel does not say."""
        return min(self._shares, default=None)

    def _open(self) -> None:
        self.states = None
        forget_files(self.folder)
        self.states = StateStore.open(self.folder, verify=True)
