"""Care of the states that are there: every byte compared, what they are told, documents deleted."""

from collections.abc import Callable, Sequence
from pathlib import Path

from jaxrank.errors import InputError
from jaxrank.ranking.document_states.disk.folder import mend_command
from jaxrank.ranking.document_states.disk.manifest import read_manifest
from jaxrank.ranking.document_states.disk.store import StateStore
from jaxrank.ranking.document_states.disk.verification import Fault, find_faults
from jaxrank.ranking.document_states.identity import array_layout
from jaxrank.state_building.chosen import from_list
from jaxrank.state_building.figures import in_bytes

Say = Callable[[str], None]


def verify(folder: Path, *, say: Say, progress: bool) -> None:
    """Compare all that is in the folder with its checksums, and list what differs.

    Args:
        say: called with a line for each fault.

    Raises:
        InputError: there are no states, or something of them is damaged.
    """
    manifest = read_manifest(folder)
    faults = find_faults(folder, progress=progress)
    for fault in faults:
        say(str(fault))
    if faults:
        raise InputError(
            f"{folder}: {_count(faults)}; take out what is damaged ({mend_command(folder)}) and "
            "encode it again"
        )
    documents = manifest.num_documents
    size = in_bytes(sum(shard.bytes for shard in manifest.shards))
    say(f"{folder}: {documents:,} documents, {size}: every byte is as it was written (SHA-256)")


def describe(folder: Path, *, say: Say) -> None:
    """Say what states the folder holds and what they were made for, as its manifest has it.

    Raises:
        InputError: there are none, or no whole manifest of them.
    """
    manifest = read_manifest(folder)
    identity = manifest.identity
    documents = manifest.num_documents
    say(f"{folder}: {documents:,} documents, {in_bytes(manifest.nbytes)}")
    if documents:
        say(f"bytes a document: {manifest.nbytes / documents:,.0f}")
    say(f"kept in: {manifest.dtype}, computed in {manifest.computed_in}")
    say(f"made for: {identity.family}, weights {identity.weights}")
    say(f"template: {identity.template}, at most {identity.document_budget} tokens of a document")
    say(f"tokenizer: {identity.tokenizer}")
    for array in identity.arrays:
        say(f"array: {array_layout(array)}")


def delete(folder: Path, documents: Path, *, say: Say) -> None:
    """Take documents out of the folder.

    Args:
        documents: file with an id a line.

    Raises:
        InputError: there are no states, or an id that is not among them; nothing is deleted then.
    """
    store = StateStore.open(folder)
    chosen = from_list(documents, store, where=str(folder))
    store.delete(chosen.document_ids)
    say(
        f"{len(chosen.document_ids):,} documents deleted; {folder} holds {len(store):,}, "
        f"{in_bytes(store.nbytes)}"
    )


def mend(folder: Path, *, say: Say, progress: bool) -> None:
    """Take out all that is damaged: documents, those of missing or cut files, a manifest.

    Raises:
        InputError: there are no states, or no whole manifest of them; or a file is damaged in a way
            that no document explains.
    """
    lost = StateStore.mend(folder)
    faults = find_faults(folder, progress=progress)
    damaged = list(dict.fromkeys(f.document_id for f in faults if f.document_id is not None))
    store = StateStore.open(folder)
    store.delete(damaged)
    for fault in faults:
        say(str(fault))
    say(
        f"taken out: {lost:,} documents of lost files, {len(damaged):,} damaged ones; "
        f"{folder} holds {len(store):,}, {in_bytes(store.nbytes)}"
    )
    if lost or damaged:
        say("encode again what was taken out")
    left = [fault for fault in faults if fault.document_id is None]
    if left:
        raise InputError(
            f"{folder}: {_count(left)} left; delete the files that are named, and mend again"
        )


def _count(faults: Sequence[Fault]) -> str:
    return "1 fault" if len(faults) == 1 else f"{len(faults):,} faults"
