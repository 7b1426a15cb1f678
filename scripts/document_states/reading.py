"""How fast stores of document states are built and read."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from jaxrank.ranking.document_states.disk.store import StateStore
from jaxrank.ranking.document_states.encoding import DocumentEncoder
from jaxrank.ranking.document_states.formats import StateDType, stored_bytes
from jaxrank.ranking.document_states.memory import MemoryStates
from jaxrank.ranking.document_states.states import DocumentStates
from scripts.document_states.candidates import forget_files
from scripts.document_states.random_models import RandomModel
from scripts.document_states.turns import Side, take_turns


def build(
    model: RandomModel, dtype: StateDType, documents: int, batch_size: int, folder: Path
) -> dict[str, Any]:
    """Read documents of the model's longest length and write `folder/store`; rates of both."""
    encoder = DocumentEncoder(
        model.module, model.tokenizer, dtype=dtype, batch_size=batch_size, identity=model.identity
    )
    texts = [(f"d{n}", text) for n, text in enumerate(model.documents(documents, model.longest))]
    encoder.encode(texts[:batch_size])  # compiles
    begin_s = time.perf_counter()
    records = encoder.encode(texts)
    read_s = time.perf_counter() - begin_s
    store = StateStore.create(
        folder / "store", encoder.identity, encoder.dtype, encoder.computed_in
    )
    begin_s = time.perf_counter()
    store.append(records)
    written_s = time.perf_counter() - begin_s
    size = sum(path.stat().st_size for path in (folder / "store").rglob("*") if path.is_file())
    return {
        "documents": documents,
        "state_bytes": stored_bytes(encoder.specs, dtype, model.longest),
        "disk_bytes": size / documents,
        "documents_per_s": documents / read_s,
        "tokens_per_s": documents * model.longest / read_s,
        "written_mb_per_s": size / written_s / 1e6,
    }


def reading_rates(folder: Path, candidates: int, repeats: int) -> dict[str, dict[str, float]]:
    """Where the states are -> MB/s and documents/s of gathering all of them.

    A store is opened anew each time, so that nothing of it was verified before; opening counts.
    """
    whole = StateStore.open(folder, verify=False)
    ids, size = list(whole.document_ids), whole.nbytes
    memory = MemoryStates(whole.identity, whole.dtype, whole.computed_in)
    memory.add(
        record._replace(arrays={name: array.copy() for name, array in record.arrays.items()})
        for record in whole.records(ids)
    )
    del whole

    def gather(states: DocumentStates) -> None:
        for start in range(0, len(ids), candidates):
            states.gather(ids[start : start + candidates])

    def from_disk(verify: bool) -> Callable[[], None]:
        return lambda: gather(StateStore.open(folder, verify=verify))

    sides = [Side("memory", lambda: gather(memory))]
    for what, verify in (("verified", True), ("unverified", False)):
        sides.append(Side(f"page cache, {what}", from_disk(verify)))
        sides.append(Side(f"disk, {what}", from_disk(verify), lambda: forget_files(folder)))
    timings = take_turns(sides, repeats=repeats)
    return {
        name: {
            "mb_per_s": size / timing.median_s / 1e6,
            "documents_per_s": len(ids) / timing.median_s,
            "spread": timing.spread,
        }
        for name, timing in timings.items()
    }
