"""Candidates' states for timing: of real documents, some of them under many ids.

Time depends on the shape of states, and their values matter only by what they are (a number that
is almost zero can be slow): so a few documents of random words are read, and each stands for
several candidates, with a copy of its states for each, so that memory and disk see all of them.
"""

import gc
from collections.abc import Iterator, Sequence
from pathlib import Path

from jaxrank.ranking.document_states.disk.store import StateStore
from jaxrank.ranking.document_states.encoding import DocumentEncoder
from jaxrank.ranking.document_states.formats import StateDType
from jaxrank.ranking.document_states.memory import MemoryStates
from jaxrank.ranking.document_states.records import Record
from scripts.document_states.random_models import RandomModel
from scripts.scale.process import drop_from_page_cache

DISTINCT = 4
"""Documents that are read."""


def read_documents(
    model: RandomModel, dtype: StateDType, length: int
) -> tuple[DocumentEncoder, list[Record]]:
    """The records of DISTINCT documents of exactly so many tokens, and what made them."""
    encoder = DocumentEncoder(
        model.module, model.tokenizer, dtype=dtype, batch_size=DISTINCT, identity=model.identity
    )
    texts = model.documents(DISTINCT, length)
    return encoder, encoder.encode([(f"read-{n}", text) for n, text in enumerate(texts)])


def copies(records: Sequence[Record], count: int) -> Iterator[Record]:
    """So many records, with arrays of their own."""
    for number in range(count):
        source = records[number % len(records)]
        arrays = {name: array.copy() for name, array in source.arrays.items()}
        yield Record(f"d{number}", source.length, arrays)


def in_memory(encoder: DocumentEncoder, records: Sequence[Record], count: int) -> MemoryStates:
    """So many candidates in memory."""
    states = MemoryStates(encoder.identity, encoder.dtype, encoder.computed_in)
    states.add(copies(records, count))
    return states


def on_disk(
    folder: Path, encoder: DocumentEncoder, records: Sequence[Record], count: int
) -> StateStore:
    """So many candidates on disk, in shards as the store makes them."""
    store = StateStore.create(folder, encoder.identity, encoder.dtype, encoder.computed_in)
    store.append(copies(records, count))
    return store


def forget_files(folder: Path) -> None:
    """Drop a store's files from memory; whoever has opened it must have let it go."""
    gc.collect()  # of a store that was let go, files may be mapped still, and mapped pages stay
    drop_from_page_cache(folder)
