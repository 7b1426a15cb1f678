"""What document states were made for; states of two identities cannot take each other's place."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from jaxrank.errors import InputError
from jaxrank.models.states import StateArray

_SHOWN_DIGITS = 12


@dataclass(frozen=True)
class StateIdentity:
    """Everything that a document's state depends on besides its text."""

    family: str
    """Of the backbone, e.g. "mamba"."""

    weights: str
    """SHA-256 of the backbone's parameters."""

    tokenizer: str
    """SHA-256 of what a document's ids depend on, but for the budget."""

    template: str
    """Its name."""

    document_budget: int
    """Most tokens of a document's side of a pair, with what the template puts around it."""

    arrays: tuple[StateArray, ...]
    """What is kept of a document."""

    def check_same(self, model: "StateIdentity", *, where: str) -> None:
        """Refuse states that were made for another model, template or budget than `model`'s.

        Args:
            model: what the model at hand makes and reads.
            where: the states, e.g. their folder; the message begins with it.

        Raises:
            InputError: naming every difference with both values.
        """
        differences = list(self._differences(model))
        if replace(self, document_budget=model.document_budget) == model != self:
            raise InputError(
                f"{where}: its states were made for another max_length or query_length: "
                f"{differences[0]}; give the same (or leave --max_length out), or encode the "
                "documents into another folder"
            )
        if differences:
            raise InputError(
                f"{where}: its states were made for another model: {'; '.join(differences)}; use "
                "that model, or encode the documents into another folder"
            )

    def as_json(self) -> dict[str, Any]:
        """What `identity_from_json` reads."""
        return asdict(self) | {
            "arrays": [asdict(array) | {"shape": list(array.shape)} for array in self.arrays]
        }

    def _differences(self, model: "StateIdentity") -> Iterator[str]:
        for name in ("family", "template"):
            found, wanted = getattr(self, name), getattr(model, name)
            if found != wanted:
                yield f"{name} {found!r}, the model has {wanted!r}"
        if self.document_budget != model.document_budget:
            yield (
                f"document budget {self.document_budget} tokens, the model has "
                f"{model.document_budget}"
            )
        for name in ("weights", "tokenizer"):
            found, wanted = getattr(self, name), getattr(model, name)
            if found != wanted:
                yield f"{name} {_shown(found)}, the model has {_shown(wanted)}"
        if self.arrays != model.arrays:
            yield f"arrays {_layout(self.arrays)}, the model has {_layout(model.arrays)}"


def identity_from_json(content: Mapping[str, Any]) -> StateIdentity:
    """The identity that `as_json` has written."""
    arrays = tuple(
        StateArray(**{**array, "shape": tuple(array["shape"])}) for array in content["arrays"]
    )
    return StateIdentity(**{**content, "arrays": arrays})


def array_layout(array: StateArray) -> str:
    """e.g. `keys (12, tokens, 12, 64)`; the layers come first."""
    layers, *rest = map(str, array.shape)
    tokens = ["tokens"] if array.per_token else []
    exact = "" if array.quantised else " not in eight bits"
    return f"{array.name} ({', '.join([layers, *tokens, *rest])}){exact}"


def _shown(digest: str) -> str:
    return digest[:_SHOWN_DIGITS]


def _layout(arrays: Sequence[StateArray]) -> str:
    return "[" + ", ".join(array_layout(array) for array in arrays) + "]"
