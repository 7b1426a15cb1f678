"""Which options of `jaxrank.rerank` go together."""

import math

from jaxrank.errors import InputError
from jaxrank.ranking.policies import LongDocuments
from jaxrank.reranking_run.options import RerankOptions

# The papers' FirstP; a model that was trained on no more tokens does not read "long" ones.
_LONGEST_FIRST_PASS = 512


def check_options(options: RerankOptions, long_documents: LongDocuments) -> None:
    """Refuse options that do not go together, before anything is read.

    Raises:
        InputError: naming the options.
    """
    if options.run is None and options.groups is None:
        raise InputError("run, groups: neither is given; give --run or --groups")
    if options.run is not None and options.groups is not None:
        raise InputError("run, groups: both are given; give one of them")
    if options.run is not None and options.collection is None:
        raise InputError("collection: got null; a run needs the collection that has its texts")
    if options.groups is not None and options.depth is not None:
        raise InputError(f"depth: got {options.depth}; groups are scored whole, so null is needed")
    if options.window_title and not long_documents.has_windows:
        raise InputError(
            f"window_title: got true with long_documents {options.long_documents}, which has no "
            "windows; leave it out, or take maxp or sump"
        )
    if options.document_text is not None and options.collection is None:
        raise InputError(
            f"document_text: got {options.document_text}; it chooses fields of a collection, and "
            "none is given"
        )
    if options.window_title and options.groups is not None:
        raise InputError("window_title: got true; groups hold no titles, so false is needed")
    check_states_options(options, long_documents)


def check_states_options(options: RerankOptions, long_documents: LongDocuments) -> None:
    """Refuse what does not go with states of documents, or without them.

    Raises:
        InputError: naming the option.
    """
    if options.document_states is None:
        for name in ("verify_states", "states_memory_gb"):
            value = getattr(options, name)
            if value != getattr(RerankOptions, name):
                shown = str(value).lower()
                raise InputError(
                    f"{name}: got {shown}; it goes with --document_states: give both or none"
                )
        return
    if options.groups is not None:
        raise InputError(
            f"document_states: got {options.document_states} with groups; states serve runs, so "
            "leave it out or give --run"
        )
    if long_documents.has_windows:
        raise InputError(
            f"document_states: got {options.document_states} with long_documents "
            f"{options.long_documents}; a state is that of a document's first tokens, so firstp or "
            "longp is needed"
        )
    if not options.states_memory_gb >= 0 or math.isinf(options.states_memory_gb):
        raise InputError(
            f"states_memory_gb: got {options.states_memory_gb}; a number of GB is needed, 0 for "
            "none"
        )


def check_long_pass(options: RerankOptions, max_length: int) -> None:
    """Refuse LongP over so few tokens that it is FirstP.

    Args:
        max_length: of the model as loaded.

    Raises:
        InputError: the model's own length is short and no other was asked for.
    """
    is_long = options.max_length is not None or max_length > _LONGEST_FIRST_PASS
    if options.long_documents == "longp" and not is_long:
        raise InputError(
            f"long_documents longp: this model reads {max_length} tokens, which is firstp; give "
            "--max_length, e.g. 1536"
        )
