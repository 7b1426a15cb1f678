"""Texts of documents into their states, in memory or on disk: what is missing is computed."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from jaxrank.progress import progress_bar
from jaxrank.ranking.document_states.disk.shards import documents_per_shard
from jaxrank.ranking.document_states.disk.store import StateStore
from jaxrank.ranking.document_states.encoding import DocumentEncoder
from jaxrank.ranking.document_states.memory import MemoryStates
from jaxrank.ranking.document_states.states import DocumentStates
from jaxrank.ranking.document_states.texts import check_texts


def encode_texts(
    texts: Sequence[str] | Mapping[str, str],
    encoder: DocumentEncoder,
    *,
    output: str | Path | None = None,
    progress: bool = False,
) -> DocumentStates:
    """The states of all texts, in memory or in the folder `output`.

    Args:
        texts: called "0", "1", ..., or a mapping of ids to them.
        output: a new folder, or one of such states, which is gone on with.

    Raises:
        ValueError: something that is no text, by its id, or an id that is none.
        InputError: what `fill` raises, so also `output` has states of other texts of these ids; it
            holds something else, or states of another dtype.
    """
    if isinstance(texts, str):
        raise ValueError("texts: got one text; a list of texts is needed, or a mapping of ids")
    documents = texts
    if not isinstance(documents, Mapping):
        documents = {str(index): text for index, text in enumerate(documents)}
    for document_id in documents:
        if not isinstance(document_id, str):
            raise ValueError(f"texts: got the id {document_id!r:.80}; ids are texts")
    states: MemoryStates | StateStore
    if output is None:
        states = MemoryStates(encoder.identity, encoder.dtype, encoder.computed_in)
    else:
        states = StateStore.open_or_create(
            output, encoder.identity, encoder.dtype, encoder.computed_in
        )
    fill(states, encoder, documents, progress=progress)
    return states


def fill(
    states: MemoryStates | StateStore,
    encoder: DocumentEncoder,
    documents: Mapping[str, str],
    document_ids: Sequence[str] | None = None,
    *,
    progress: bool = False,
) -> int:
    """Compute and add the states of documents that `states` lacks; return how many.

    The missing documents are cut, in their order, into shards of a fixed number, and what a shard
    holds depends on its documents and the encoder's `batch_size` alone. So states whose making was
    interrupted and gone on with equal, bit for bit, those that were made at once.

    Args:
        states: made for the encoder's model, kept in its dtype.
        documents: id -> text; texts are read a shard at a time, and before the first those of the
            documents that are there.
        document_ids: those of `documents` that are wanted; None: all.
        progress: whether to draw a bar.

    Raises:
        InputError: states of another model, by what differs, or of another text, by the document,
            before anything is computed; a state that is not finite, by its document: the shards
            before are in then.
    """
    states.identity.check_same(encoder.identity, where=states.where)
    wanted = list(documents) if document_ids is None else document_ids
    if isinstance(states, StateStore):
        # Another writer that fills the same gaps is to find them filled.
        with states.writing():
            return _fill(states, encoder, documents, wanted, progress)
    return _fill(states, encoder, documents, wanted, progress)


def _fill(
    states: MemoryStates | StateStore,
    encoder: DocumentEncoder,
    documents: Mapping[str, str],
    document_ids: Sequence[str],
    progress: bool,
) -> int:
    missing = states.missing(document_ids)
    lacking = frozenset(missing)
    there = [name for name in dict.fromkeys(document_ids) if name not in lacking]
    check_texts(states, documents, there, progress=progress and bool(there))
    if isinstance(states, StateStore):
        add, size = states.append, states.documents_per_shard
    else:
        identity = states.identity
        add = states.add
        size = documents_per_shard(identity.arrays, states.dtype, identity.document_budget)
    with progress_bar(
        description="reading documents", unit="document", enabled=progress, total=len(missing)
    ) as bar:
        for start in range(0, len(missing), size):
            shard = [(name, documents[name]) for name in missing[start : start + size]]
            for name, text in shard:
                if not isinstance(text, str):
                    raise ValueError(f"document {name!r}: got {text!r:.80}; a text is needed")
            add(encoder.encode(shard, read=bar.update))
    return len(missing)
