"""What a model does with document states: it makes them, and it scores from them."""

from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from flax import nnx

from jaxrank.models.families import state_arrays
from jaxrank.models.module import RerankerModule
from jaxrank.ranking.document_states.disk.store import StateStore
from jaxrank.ranking.document_states.encoding import DocumentEncoder
from jaxrank.ranking.document_states.formats import StateDType, check_dtype
from jaxrank.ranking.document_states.identity import StateIdentity
from jaxrank.ranking.document_states.model_identity import identity_of
from jaxrank.ranking.document_states.on_device import DeviceStates
from jaxrank.ranking.document_states.scoring import BATCH_SIZE, StateScorer
from jaxrank.ranking.document_states.states import DocumentStates
from jaxrank.ranking.policies import LongDocuments
from jaxrank.text.document_first import DocumentFirst
from jaxrank.text.tokenize import PairTokenizer


class StatesOfModel:
    """Encoders and scorers of one model, which share its identity and one tokenizer.

    All are of the module as it is when this object is made: states never carry the identity of
    other weights than those that made them.

    Args:
        module: the reranker; its weights are read once, for the identity.
        pairs: its tokenizer and template.

    Raises:
        InputError: the model's family or its template has no document states, with the reason.
    """

    def __init__(self, module: RerankerModule, pairs: PairTokenizer) -> None:
        # First: a template may be changed, a family not.
        state_arrays(module.config.family, module.config.backbone)
        self.tokenizer = DocumentFirst(pairs)
        # Its own variables, which nobody changes, over the same arrays.
        self._module: RerankerModule = nnx.clone(module)
        self._encoders: dict[int, DocumentEncoder] = {}
        self._scorers: dict[int, StateScorer] = {}

    @cached_property
    def identity(self) -> StateIdentity:
        """What the model's states are made for."""
        return identity_of(self._module, self.tokenizer)

    def open(self, folder: str | Path, *, verify: bool = True) -> StateStore:
        """Open states on disk; see `Reranker.open_states`."""
        return StateStore.open(folder, made_for=self.identity, verify=verify)

    def encoder(self, dtype: StateDType, batch_size: int) -> DocumentEncoder:
        """What reads documents; what it compiles is kept for the next of the same `batch_size`.

        Raises:
            InputError: states are not kept in `dtype`.
        """
        check_dtype(dtype)
        if batch_size not in self._encoders:
            self._encoders[batch_size] = DocumentEncoder(
                self._module, self.tokenizer, batch_size=batch_size, identity=self.identity
            )
        return self._encoders[batch_size].kept_in(dtype)

    def scorer(self, batch_size: int | None = None) -> StateScorer:
        """What scores from states; the same object for the same `batch_size`, by default 100."""
        batch_size = BATCH_SIZE if batch_size is None else batch_size
        if batch_size not in self._scorers:
            self._scorers[batch_size] = StateScorer(
                self._module, self.tokenizer, batch_size=batch_size, identity=self.identity
            )
        return self._scorers[batch_size]

    def rank(
        self,
        query: str,
        states: DocumentStates | DeviceStates,
        top_k: int | None = None,
        batch_size: int | None = None,
    ) -> list[dict[str, Any]]:
        """All documents of `states` by falling relevance to one query; ties keep their order.

        Returns:
            `[{"corpus_id": position in states.document_ids, "document_id": id, "score": float},
            ...]`.
        """
        names = states.document_ids
        scores = self.scorer(batch_size).score(query, states, names)
        return [
            {"corpus_id": row, "document_id": names[row], "score": float(scores[row])}
            for row in np.argsort(-scores, kind="stable")[:top_k].tolist()
        ]


def refuse_what_needs_texts(return_documents: bool, long_documents: LongDocuments | None) -> None:
    """Raise ValueError for options of `Reranker.rank` that say nothing about states."""
    if return_documents:
        raise ValueError("return_documents: got True with states, which hold no texts")
    if long_documents is not None:
        raise ValueError(
            f"long_documents: got {long_documents.policy!r} with states, each of which is of a "
            "document's first part; leave it out, or rank texts"
        )
