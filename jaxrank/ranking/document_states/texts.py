"""Whether states are those of the texts at hand: ids stay when a collection is edited."""

from collections.abc import Mapping, Sequence

from jaxrank.data.hashing import hash_text
from jaxrank.errors import InputError
from jaxrank.progress import progress_bar
from jaxrank.ranking.document_states.states import DocumentStates

# Documents whose places are looked up together.
_AT_ONCE = 4096


def check_texts(
    states: DocumentStates,
    documents: Mapping[str, str],
    document_ids: Sequence[str],
    *,
    progress: bool = False,
) -> None:
    """Refuse states that were made of other texts than those of `documents`.

    Every text is read, no state is. States whose text is not known pass.

    Args:
        documents: id -> text, as it would be read now.
        document_ids: documents of which there are states, each once.
        progress: whether to draw a bar.

    Raises:
        InputError: naming the first document whose text differs, and how many others do.
    """
    changed: list[str] = []
    with progress_bar(
        description="comparing texts",
        unit="document",
        enabled=progress,
        total=len(document_ids),
    ) as bar:
        for start in range(0, len(document_ids), _AT_ONCE):
            names = document_ids[start : start + _AT_ONCE]
            for name, made_of in zip(names, states.text_hashes(names).tolist(), strict=True):
                if made_of not in (0, hash_text(documents[name])):
                    changed.append(name)
            bar.update(len(names))
    if changed:
        others = f" (the same holds of {len(changed) - 1:,} more)" if len(changed) > 1 else ""
        raise InputError(
            f"{states.where}: document {changed[0]!r}: its text is not the one that its state was "
            f"made of{others}; give the texts that the states were made of (--document_text "
            "chooses their fields), or delete what has changed (python -m jaxrank.encode_documents "
            f"delete --output {states.where} --documents FILE) and encode it again"
        )
