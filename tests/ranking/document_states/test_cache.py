import threading
from pathlib import Path

import numpy as np
import pytest

from jaxrank.errors import InputError
from jaxrank.ranking.document_states.cache import CachedStates
from jaxrank.ranking.document_states.memory import MemoryStates
from jaxrank.ranking.document_states.states import DocumentStates
from tests.ranking.document_states.small_states import (
    FIXED_IDENTITY,
    IDENTITY,
    assert_records,
    length_of,
    names,
    new_store,
    record_of,
)

NAMES = names(0, 30)
BYTES = record_of(NAMES[0], identity=FIXED_IDENTITY).nbytes


class Counted(MemoryStates):
    """States that remember what was asked for."""

    def __init__(self) -> None:
        super().__init__(FIXED_IDENTITY, "float32", "float32")
        self.add(record_of(name, identity=FIXED_IDENTITY) for name in NAMES)
        self.asked: list[str] = []

    def records(self, document_ids):
        self.asked.extend(document_ids)
        return super().records(document_ids)


def test_those_asked_for_longest_ago_go_first():
    states = Counted()
    cached = CachedStates(states, 3 * BYTES + BYTES // 2)
    a, b, c, d = NAMES[:4]
    cached.records([a, b, c])
    cached.records([a])
    cached.records([d])  # takes the place of b
    assert states.asked == [a, b, c, d]
    cached.records([a, c, d])
    assert states.asked == [a, b, c, d]
    cached.records([b])
    assert states.asked == [a, b, c, d, b]
    assert cached.kept_bytes == 3 * BYTES


def test_hits_and_misses_are_counted_by_document():
    cached = CachedStates(Counted(), 10 * BYTES)
    assert cached.hit_rate == 0
    cached.gather(NAMES[:4])
    assert (cached.hits, cached.misses) == (0, 4)
    cached.gather(NAMES[2:8])
    assert (cached.hits, cached.misses, cached.hit_rate) == (2, 8, 0.2)
    cached.records([NAMES[9], NAMES[9]])  # asked for twice, and yet of no use
    assert (cached.hits, cached.misses) == (2, 9)
    cached.records([NAMES[9], NAMES[9]])
    assert (cached.hits, cached.misses) == (3, 9)


def test_bytes_are_what_is_bounded_not_documents():
    records = [record_of(name) for name in NAMES]
    assert len({record.nbytes for record in records}) > 3
    states = MemoryStates(IDENTITY, "float32", "float32")
    states.add(records)
    cached = CachedStates(states, 2000)
    for name in NAMES:
        cached.records([name])
        assert 0 < cached.kept_bytes <= 2000
    before = cached.misses
    kept = 0
    for record in reversed(records):  # the newest that fit, and no other
        kept += record.nbytes
        if kept > 2000:
            break
        cached.records([record.document_id])
        assert cached.misses == before


def test_what_is_larger_than_the_capacity_is_handed_on():
    cached = CachedStates(Counted(), BYTES - 1)
    (record,) = cached.records([NAMES[3]])
    np.testing.assert_array_equal(
        record.arrays["recurrence"],
        record_of(NAMES[3], identity=FIXED_IDENTITY).arrays["recurrence"],
    )
    assert cached.kept_bytes == 0
    with pytest.raises(ValueError, match="capacity_bytes: got -1"):
        CachedStates(Counted(), -1)


def test_what_is_kept_of_a_store_is_in_memory_and_of_no_file(tmp_path: Path):
    store = new_store(tmp_path / "states", NAMES)
    cached = CachedStates(store, 2**20)
    cached.gather(NAMES)
    for record in cached.records(NAMES):
        assert all(array.flags.owndata for array in record.arrays.values())
    for path in (tmp_path / "states").glob("*.safetensors"):
        path.unlink()
    assert_records(cached.records(NAMES), NAMES, "float32")
    assert (cached.hits, cached.misses) == (60, 30)


def test_a_document_that_was_deleted_or_made_anew_is_not_served_as_it_was(tmp_path: Path):
    store = new_store(tmp_path, NAMES)
    cached = CachedStates(store, 2**20)
    cached.records(NAMES)
    a, b = NAMES[:2]
    store.delete([a])
    with pytest.raises(InputError, match=f"no state of document '{a}'"):
        cached.records([a])
    assert_records(cached.records(NAMES[1:]), NAMES[1:], "float32")
    assert cached.hits == 0
    # More documents, also those of another process, change none of those that are kept.
    other = DocumentStates.open(tmp_path)
    store.append([record_of(a)])
    other.append([record_of("new")])
    store.refresh()
    cached.records(NAMES[2:])
    assert cached.hits == 28
    other.delete([b])
    other.append([record_of(b)._replace(text_hash=7)])
    store.refresh()
    (record,) = cached.records([b])
    assert record.text_hash == 7


def test_what_is_read_while_documents_are_deleted_is_not_kept(tmp_path: Path):
    store = new_store(tmp_path, NAMES[:8])

    class Slow(CachedStates):
        """A source that has read its records when others delete one of them."""

        def records(self, document_ids):
            records = super().records(document_ids)
            if len(store) == 8:
                store.delete(NAMES[:1])
            return records

    cached = CachedStates(Slow(store, 0), 2**20)
    cached.records(NAMES[:4])
    assert cached.kept_bytes == 0
    with pytest.raises(InputError, match=f"no state of document '{NAMES[0]}'"):
        cached.records(NAMES[:1])


def test_lengths_of_what_is_kept_are_known():
    states = Counted()
    cached = CachedStates(states, 4 * BYTES)
    cached.records(NAMES[:3])
    asked = [NAMES[1], NAMES[5], NAMES[2], NAMES[1]]
    assert cached.lengths(asked).tolist() == [length_of(name) for name in asked]
    assert states.asked == [*NAMES[:3], NAMES[5]]


def test_what_two_read_at_the_same_time_is_kept_once():
    class Shared(Counted):
        def records(self, document_ids):
            if not self.asked:  # another asks for the same while this one is read
                self.asked.append("first")
                cached.records(document_ids)
            return super().records(document_ids)

    cached = CachedStates(Shared(), 4 * BYTES)
    cached.records(NAMES[:3])
    assert (cached.kept_bytes, cached.misses) == (3 * BYTES, 6)


def test_threads_share_a_cache():
    states = Counted()
    cached = CachedStates(states, 7 * BYTES)
    wrong: list[str] = []

    def read(seed: int) -> None:
        random = np.random.default_rng(seed)
        for _ in range(60):
            asked = [NAMES[row] for row in random.choice(len(NAMES), 5, replace=False)]
            found = [record.document_id for record in cached.records(asked)]
            if found != asked or cached.kept_bytes > 7 * BYTES:
                wrong.append(f"{asked} {found} {cached.kept_bytes}")

    threads = [threading.Thread(target=read, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
    assert cached.hits + cached.misses == 4 * 60 * 5
    assert cached.misses == len(states.asked)
    assert cached.kept_bytes == 7 * BYTES
