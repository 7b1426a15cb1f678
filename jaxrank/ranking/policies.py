"""What is asked for documents longer than a model reads; long_documents.py does it."""

from dataclasses import dataclass
from typing import Literal

from jaxrank.errors import InputError

Policy = Literal["firstp", "maxp", "sump", "longp"]
"""One pass over a document (firstp, longp), or windows whose scores are put together."""


@dataclass(frozen=True)
class LongDocuments:
    """How documents are scored that are longer than the model reads at once."""

    policy: Policy = "firstp"
    """One pass (firstp and longp, which differ in the model's max_length only) or windows."""
    window: int | None = None
    """Tokens of a window, with its title and the template's words for a document (`document: `).
    Null: what the template gives a document; max_length - 50 where that depends on the query."""
    stride: int | None = None
    """Tokens from the beginning of a window to that of the next one. Null: half a window."""

    def __post_init__(self) -> None:
        if self.has_windows:
            return
        for name in ("window", "stride"):
            if getattr(self, name) is not None:
                raise InputError(
                    f"{name}: got {getattr(self, name)} with long_documents {self.policy}, which "
                    "has no windows; leave it out, or take maxp or sump"
                )

    @property
    def has_windows(self) -> bool:
        """Whether a document is scored in several parts."""
        return self.policy in ("maxp", "sump")
