"""Care of the states that are there: every byte compared, what they are told, documents deleted."""

from collections.abc import Callable
from pathlib import Path

from jaxrank.errors import InputError
from jaxrank.ranking.document_states.disk.manifest import read_manifest
from jaxrank.ranking.document_states.disk.store import StateStore
from jaxrank.ranking.document_states.disk.verification import find_faults
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
        count = "1 fault" if len(faults) == 1 else f"{len(faults):,} faults"
        command = "python -m jaxrank.encode_documents"
        mends = []
        if any(fault.document_id is None for fault in faults):
            mends.append(f"take lost files out ({command} mend --output {folder})")
        if any(fault.document_id is not None for fault in faults):
            mends.append(
                f"delete the documents that are named ({command} delete --output {folder} "
                "--documents FILE)"
            )
        raise InputError(f"{folder}: {count}; {', '.join(mends)} and encode again")
    documents = sum(shard.documents for shard in manifest.shards)
    size = in_bytes(sum(shard.bytes for shard in manifest.shards))
    say(f"{folder}: {documents:,} documents, {size}: every byte is as it was written (SHA-256)")


def describe(folder: Path, *, say: Say) -> None:
    """Say what states the folder holds and what they were made for.

    Raises:
        InputError: there are none, or they are damaged.
    """
    store = StateStore.open(folder)
    identity = store.identity
    say(f"{folder}: {len(store):,} documents, {in_bytes(store.nbytes)}")
    if len(store):
        say(f"bytes a document: {store.nbytes / len(store):,.0f}")
    say(f"kept in: {store.dtype}, computed in {store.computed_in}")
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


def mend(folder: Path, *, say: Say) -> None:
    """Take what is lost out of the folder: documents of missing or cut files, a damaged manifest.

    Raises:
        InputError: there are no states, or no whole manifest of them.
    """
    lost = StateStore.mend(folder)
    store = StateStore.open(folder)
    again = "; encode them again" if lost else ""
    say(
        f"{lost:,} documents of lost files taken out{again}; {folder} holds {len(store):,}, "
        f"{in_bytes(store.nbytes)}"
    )
    say(
        "states themselves were not compared: python -m jaxrank.encode_documents verify --output "
        f"{folder}"
    )
