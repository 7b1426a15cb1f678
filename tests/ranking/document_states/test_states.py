"""What all document states do alike: in memory, in a folder, behind a cache."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import jax
import numpy as np
import pytest

from jaxrank.errors import InputError
from jaxrank.models.states import StateArray
from jaxrank.ranking.document_states.cache import CachedStates
from jaxrank.ranking.document_states.formats import StateDType
from jaxrank.ranking.document_states.memory import MemoryStates
from jaxrank.ranking.document_states.records import Record
from jaxrank.ranking.document_states.states import DocumentStates
from jaxrank.ranking.document_states.threads import in_threads
from tests.ranking.document_states.small_states import (
    BUDGET,
    IDENTITY,
    assert_gathered,
    assert_records,
    length_of,
    names,
    new_store,
    record_of,
    text_hash_of,
)

NAMES = names(0, 10)
ASKED = [NAMES[7], NAMES[0], NAMES[9], NAMES[3], NAMES[7]]
Make = Callable[[Path, StateDType], DocumentStates]


def in_memory(folder: Path, dtype: StateDType = "float32") -> MemoryStates:
    states = MemoryStates(IDENTITY, dtype, "float32")
    states.add(record_of(name, dtype) for name in NAMES)
    return states


KINDS: dict[str, Make] = {
    "memory": in_memory,
    "disk": lambda folder, dtype: new_store(folder / "states", NAMES, dtype=dtype),
    "cached": lambda folder, dtype: CachedStates(in_memory(folder, dtype), 2000),
    "selected": lambda folder, dtype: in_memory(folder, dtype).select(NAMES),
}


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "int8"])
@pytest.mark.parametrize("kind", KINDS)
def test_documents_are_found_and_gathered_by_id(kind: str, dtype: StateDType, tmp_path: Path):
    states = KINDS[kind](tmp_path, dtype)
    assert (states.identity, states.dtype, states.computed_in) == (IDENTITY, dtype, "float32")
    assert list(states.document_ids) == NAMES
    assert states.document_ids[3] == NAMES[3]
    assert len(states) == 10
    assert NAMES[4] in states
    assert "another" not in states
    assert states.missing(["x", NAMES[2], "y", "x"]) == ["x", "y"]
    assert states.lengths(ASKED).tolist() == [length_of(name) for name in ASKED]
    hashes = states.text_hashes(ASKED)
    assert hashes.dtype == np.uint64
    assert hashes.tolist() == [text_hash_of(name) for name in ASKED]
    assert_records(states.records(ASKED), ASKED, dtype)
    assert_gathered(states.gather(ASKED), ASKED, dtype)
    assert_gathered(states.gather(ASKED, rows=8, tokens=BUDGET + 3), ASKED, dtype)
    assert_gathered(states.gather([], rows=2, tokens=1), [], dtype)
    assert states.nbytes == sum(record_of(name, dtype).nbytes for name in NAMES)
    assert "\ud800" not in states  # half of a surrogate pair, as JSON may have it
    assert states.missing(["\ud800", NAMES[2]]) == ["\ud800"]


@pytest.mark.parametrize("kind", KINDS)
def test_a_document_without_a_state_is_named(kind: str, tmp_path: Path):
    states = KINDS[kind](tmp_path, "float32")
    for ask in (
        states.records, states.gather, states.lengths, states.text_hashes, states.select,
    ):  # fmt: skip
        with pytest.raises(InputError, match=r"no state of document 'dé-99'; it is to be encoded"):
            ask([NAMES[0], "dé-99"])


def test_layers_come_first_and_then_rows(tmp_path: Path):
    arrays = in_memory(tmp_path).gather(ASKED, rows=8, tokens=BUDGET).arrays
    shapes = {name: array.shape for name, array in arrays.items()}
    assert shapes == {
        "convolution": (2, 8, 3, 5),
        "recurrence": (2, 8, 5, 4),
        "keys": (2, 8, BUDGET, 2, 3),
        "values": (2, 8, BUDGET, 2, 3),
    }
    longest = max(length_of(name) for name in ASKED)
    assert in_memory(tmp_path).gather(ASKED).arrays["keys"].shape == (2, 5, longest, 2, 3)


def test_a_gathered_batch_is_taken_over_without_a_copy_on_a_cpu(tmp_path: Path):
    gathered = in_memory(tmp_path, "bfloat16").gather(ASKED, rows=8, tokens=BUDGET)
    moved = jax.device_put(gathered.arrays)
    for name, array in gathered.arrays.items():
        assert moved[name].unsafe_buffer_pointer() == array.ctypes.data


def test_too_few_rows_or_tokens_are_refused(tmp_path: Path):
    states = in_memory(tmp_path)
    with pytest.raises(ValueError, match="rows: got 3; there are 5 documents"):
        states.gather(ASKED, rows=3)
    longest = max(ASKED, key=length_of)
    with pytest.raises(ValueError, match=f"tokens: got 1; document '{longest}' has"):
        states.gather([longest], tokens=1)


def test_a_view_has_its_own_order_and_nothing_else(tmp_path: Path):
    chosen = [NAMES[5], NAMES[1]]
    view = in_memory(tmp_path).select(chosen)
    assert list(view.document_ids) == chosen
    assert len(view) == 2
    assert NAMES[0] not in view
    assert view.missing(NAMES[:3]) == [NAMES[0], NAMES[2]]
    for ask in (view.records, view.gather, view.lengths):
        with pytest.raises(InputError, match="no state of document 'dé-0'"):
            ask([NAMES[0]])


def test_large_records_are_copied_by_threads():
    identity = replace(IDENTITY, arrays=(StateArray("recurrence", (2, 300, 1000)),))
    states = MemoryStates(identity, "float32", "float32")
    for number in range(4):
        array = np.full((2, 300, 1000), number, np.float32)
        states.add([Record(f"{number}", 1, {"recurrence": array})])
    found = states.gather(["3", "1", "2", "0"]).arrays["recurrence"]
    assert (found == np.array([3, 1, 2, 0], np.float32)[:, None, None]).all()


def test_threads_give_results_in_order_and_raise_errors(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("os.cpu_count", lambda: 4)

    def halved(number: int) -> int:
        if number == 13:
            raise InputError("13: an even number is needed")
        return number // 2

    assert in_threads(halved, range(0, 30, 2), num_bytes=2**30) == list(range(15))
    with pytest.raises(InputError, match="13: an even number"):
        in_threads(halved, range(30), num_bytes=2**30)


def without(record: Record, name: str) -> Record:
    return record._replace(
        arrays={other: array for other, array in record.arrays.items() if other != name}
    )


def changed(record: Record, name: str, array: np.ndarray) -> Record:
    return record._replace(arrays={**record.arrays, name: array})


def test_records_that_do_not_belong_are_refused(tmp_path: Path):
    states, store = in_memory(tmp_path), new_store(tmp_path / "states")
    record = record_of("new")
    wrong = {
        r"record 'new': arrays \['convolution', 'recurrence', 'values'\]; \['conv": without(
            record, "keys"
        ),
        r"recurrence is float32 \(2, 5\); float32 \(2, 5, 4\) is needed": changed(
            record, "recurrence", np.zeros((2, 5), np.float32)
        ),
        r"recurrence is float64 \(2, 5, 4\); float32": changed(
            record, "recurrence", np.zeros((2, 5, 4))
        ),
        "document 'new': 10 tokens were read; at most 9": record._replace(length=BUDGET + 1),
        "document 'new': -1 tokens": record._replace(length=-1),
        r"keys is float32 .* is needed": record._replace(length=(length_of("new") + 1) % BUDGET),
        r"document '\\ud800': its id is no Unicode text": record._replace(document_id="\ud800"),
    }
    for message, bad in wrong.items():
        for add in (states.add, store.append):
            with pytest.raises(ValueError, match=message):
                add([bad])
    assert len(states) == 10
    assert len(store) == 0


@pytest.mark.parametrize("bad", [np.nan, -np.nan, np.inf, -np.inf])
@pytest.mark.parametrize(
    ("dtype", "name"),
    [
        ("float32", "recurrence"),
        ("bfloat16", "keys"),
        ("int8", "convolution"),
        ("int8", "recurrence.scale"),
    ],
)
def test_states_that_are_not_finite_are_refused(
    dtype: StateDType, name: str, bad: float, tmp_path: Path
):
    record = record_of("new", dtype)
    array = record.arrays[name].copy()
    array.reshape(-1)[-1] = bad
    kept_in = record.arrays[name].dtype
    message = (
        f"document 'new': {name} of its state has numbers that are not finite, computed in float32 "
        f"and kept in {kept_in}; check the weights$"
    )
    for add in (in_memory(tmp_path, dtype).add, new_store(tmp_path / "states", dtype=dtype).append):
        with pytest.raises(InputError, match=message):
            add([changed(record, name, array)])
        add([record])


def test_a_number_that_is_not_finite_may_come_of_the_type_that_was_computed_in():
    states = MemoryStates(IDENTITY, "float32", "bfloat16")
    bad = record_of("new")
    bad.arrays["keys"].reshape(-1)[0] = np.inf
    with pytest.raises(
        InputError,
        match=r"computed in bfloat16 and kept in float32; check the .*, or compute in float32$",
    ):
        states.add([bad])


def test_the_largest_numbers_are_finite():
    largest = np.finfo(np.float32).max
    array = np.array([[largest, -largest, 0, -0.0]], np.float32)
    identity = replace(IDENTITY, arrays=(StateArray("recurrence", (1, 4)),))
    states = MemoryStates(identity, "float32", "float32")
    states.add([Record("d", 1, {"recurrence": array})])
    assert "d" in states


def test_a_document_is_added_once(tmp_path: Path):
    states = in_memory(tmp_path)
    with pytest.raises(InputError, match="document 'dé-3': is among the document states in memory"):
        states.add([record_of("new"), record_of(NAMES[3])])
    assert "new" in states
