"""The work of `jaxrank.encode_documents`: states made and added, or care of those there are."""

from collections.abc import Callable
from pathlib import Path
from time import perf_counter

from ckpt_convert.weight_files import files_of_model
from jaxrank.data.collection import Collection, check_outside
from jaxrank.files import Inputs, check_apart, check_target
from jaxrank.ranking.document_states.disk.folder import check_folder
from jaxrank.ranking.document_states.disk.manifest import holds_states
from jaxrank.ranking.document_states.disk.store import StateStore
from jaxrank.ranking.document_states.encoding import DocumentEncoder
from jaxrank.ranking.document_states.filling import fill
from jaxrank.reranker import Reranker
from jaxrank.state_building.checks import check_options
from jaxrank.state_building.chosen import Chosen, from_list, from_runs
from jaxrank.state_building.estimate import check_disk, draw_sample, estimate_line
from jaxrank.state_building.figures import in_bytes
from jaxrank.state_building.keeping import delete, describe, mend, verify
from jaxrank.state_building.options import EncodeOptions

Say = Callable[[str], None]


def work_on_states(options: EncodeOptions, *, say: Say, progress: bool = True) -> None:
    """Do what `options.action` names.

    Args:
        say: called with lines for the user, as they come up.

    Raises:
        InputError: options, files or a model that cannot be used, states that do not fit on the
            disk, or that are damaged.
    """
    check_options(options)
    if options.action == "encode":
        encode(options, say=say, progress=progress)
    elif options.action == "verify":
        verify(options.output, say=say, progress=progress)
    elif options.action == "describe":
        describe(options.output, say=say)
    elif options.action == "mend":
        mend(options.output, say=say, progress=progress)
    else:
        assert options.documents is not None
        delete(options.output, options.documents, say=say)


def encode(options: EncodeOptions, *, say: Say, progress: bool) -> None:
    """Add the states of the chosen documents that the folder lacks, and say what was done.

    Args:
        say: as of `work_on_states`.

    Raises:
        InputError: as of `work_on_states`; a state that is not finite. States that were added
            before stay, and the same call goes on with them.
    """
    assert options.model is not None
    assert options.collection is not None
    _check_places(options, options.model)
    collection = Collection.open(
        options.collection, document_text=options.document_text, progress=progress
    )
    chosen = _choose(options, collection)
    if chosen.repeated:
        say(f"{chosen.repeated:,} ids came again in {options.documents} and count once")
    model = Reranker.from_pretrained(
        options.model, dtype=options.compute_dtype, max_length=options.max_length
    )
    encoder = model.document_states.encoder(options.kept_dtype, options.batch_size)
    tokenizer = encoder.tokenizer
    missing, store = chosen.document_ids, None
    if holds_states(options.output):
        store = _open_store(options.output, encoder)
        missing = store.missing(missing)
        there = len(chosen.document_ids) - len(missing)
        say(f"{there:,} of {len(chosen.document_ids):,} documents are in {options.output} already")
    if missing:
        sample = draw_sample(tokenizer, collection.documents, missing)
        num_bytes = sample.num_bytes(encoder.specs, encoder.dtype)
        check_disk(options.output, num_bytes, len(missing))
        store = _open_store(options.output, encoder) if store is None else store
        seconds = sample.seconds(
            encoder.encode,
            batch_size=options.batch_size,
            document_budget=tokenizer.document_budget,
        )
        is_exact = not any(spec.per_token for spec in encoder.specs)
        say(estimate_line(len(missing), num_bytes, seconds, is_exact=is_exact))
    assert store is not None
    sampled = tokenizer.document_counts  # read again below, where they count
    begin = perf_counter()
    # All that were chosen: those that are there must be of the same texts.
    added = fill(store, encoder, collection.documents, chosen.document_ids, progress=progress)
    seconds = perf_counter() - begin
    if added:
        say(f"{added:,} documents in {seconds:.1f} s, {added / seconds:,.1f} documents/s")
        say((tokenizer.document_counts - sampled).summary("documents"))
    say(f"{options.output} holds {len(store):,} documents, {in_bytes(store.nbytes)}")


def _check_places(options: EncodeOptions, model: str) -> None:
    check_target(options.output, is_folder=True)
    inputs: Inputs = {
        "--collection": [options.collection],
        "--model": [Path(model), *files_of_model(Path(model))],
        "--documents": [options.documents],
        "--runs": options.runs,
    }
    check_apart(options.output, inputs, is_folder=True)
    check_outside(options.output, options.collection)
    check_folder(options.output)


def _choose(options: EncodeOptions, collection: Collection) -> Chosen:
    """The documents that states are wanted of."""
    known, where = collection.documents, str(options.collection)
    if options.documents is not None:
        return from_list(options.documents, known, where=where)
    if options.runs:
        return from_runs(options.runs, options.depth, known, where=where)
    return Chosen(list(known))


def _open_store(folder: Path, encoder: DocumentEncoder) -> StateStore:
    return StateStore.open_or_create(folder, encoder.identity, encoder.dtype, encoder.computed_in)
