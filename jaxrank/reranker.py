"""Reranker: a model folder in, relevance scores out. The public face of the project."""

from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import jax.numpy as jnp
import numpy as np
from transformers import PreTrainedTokenizerFast

from ckpt_convert.load import load
from ckpt_convert.save import save
from jaxrank.compilation_cache import keep_compilations
from jaxrank.errors import InputError
from jaxrank.models.module import RerankerConfig, RerankerModule, build_module, parameters
from jaxrank.progress import track
from jaxrank.ranking.document_states.filling import encode_texts
from jaxrank.ranking.document_states.formats import StateDType
from jaxrank.ranking.document_states.identity import StateIdentity
from jaxrank.ranking.document_states.of_model import StatesOfModel, refuse_what_needs_texts
from jaxrank.ranking.document_states.on_device import DeviceStates
from jaxrank.ranking.document_states.scoring import BATCH_SIZE, StateScorer
from jaxrank.ranking.document_states.states import DocumentStates
from jaxrank.ranking.long_documents import DocumentScorer, Text, as_pairs, as_text
from jaxrank.ranking.policies import LongDocuments
from jaxrank.ranking.scoring import Scorer
from jaxrank.text.templates import TextConfig
from jaxrank.text.tokenize import PairTokenizer, TruncationCounts

DType = Literal["float32", "bfloat16"]


class Reranker:
    """A cross-encoder with its weights, tokenizer and template.

        model = jaxrank.Reranker.from_pretrained("runs/quickstart/model")
        model.predict([("What causes asthma?", "Asthma is caused by ...")])  # np.float32 (1,)
        model.rank("What causes asthma?", documents, top_k=3)

    Args:
        config: what the module was built with; goes into the saved folder.
        module: the network.
        tokenizer: a fast tokenizer.
        text: template and budgets, the same as in training.
    """

    def __init__(
        self,
        config: RerankerConfig,
        module: RerankerModule,
        tokenizer: PreTrainedTokenizerFast,
        text: TextConfig,
    ) -> None:
        self.config = config
        self.module = module
        self.tokenizer = tokenizer
        self.text = text
        self._pairs = PairTokenizer(tokenizer, text)
        self._scorers: dict[int, Scorer] = {}
        self._document_scorers: dict[tuple[LongDocuments, int], DocumentScorer] = {}

    @classmethod
    def from_pretrained(
        cls,
        source: str | Path,
        *,
        dtype: DType = "float32",
        tokenizer: str | Path | None = None,
        text: TextConfig | None = None,
        max_length: int | None = None,
        allow_pickle: bool = False,
        base: str | Path | None = None,
    ) -> "Reranker":
        """Load a model folder (ours, or a published cross-encoder's) or a hub id.

        Switches JAX's compilation cache on, in `~/.cache/jaxrank/xla`, unless one is set already.

        Args:
            source: a folder with config.json and model.safetensors, or the id of such a folder on
                the Hugging Face hub. A folder of low-rank adapters alone, ours or PEFT's, is
                merged into the model that it names.
            dtype: what the network computes in; parameters and scores are float32 anyway.
            tokenizer: where the tokenizer is, if not in `source`.
            text: template and budgets instead of those that the folder names.
            max_length: longest pair in tokens instead of the one that the folder or `text` names.
            allow_pickle: read pytorch_model.bin where there are no safetensors. Needs PyTorch,
                which takes tensors from it in a process of its own and runs no code.
            base: the model that adapters change, where it is not the one that they name.

        Raises:
            InputError: no such folder, an unknown kind of model, weights that do not fit, no
                score head among them, so that scores would be random, or a `max_length` beyond the
                model's positions.
        """
        keep_compilations()
        loaded = load(
            source,
            tokenizer=tokenizer,
            text=text,
            max_length=max_length,
            allow_pickle=allow_pickle,
            base=base,
        )
        if loaded.fresh:
            raise InputError(
                f"{source}: holds no trained score head ({', '.join(loaded.fresh)}); "
                f"train one: python -m jaxrank.train --config RECIPE --model.init_from {source}"
            )
        if loaded.added_tokens:
            raise InputError(
                f"{source}: was not trained with the tokens {', '.join(loaded.added_tokens)}, "
                f"which {loaded.text.template} needs; train it with --text.template, or choose "
                "another"
            )
        module = build_module(
            loaded.config, loaded.parameters, dtype=jnp.dtype(dtype), release=True
        )
        return cls(loaded.config, module, loaded.tokenizer, loaded.text)

    def predict(
        self,
        pairs: Sequence[Sequence[Text]],
        batch_size: int = 32,
        *,
        show_progress_bar: bool = False,
        long_documents: LongDocuments | None = None,
    ) -> np.ndarray:
        """Scores of (query, document) pairs, float32 (n,), in their order; higher is more relevant.

        Pairs are sorted by length inside, so their order and `batch_size` change no score by more
        than 1e-5 in float32. What did not fit is counted in `truncation`.

        Args:
            long_documents: how documents are scored that `max_length` would cut, e.g.
                `LongDocuments("maxp")`. A document may then be a `TitledText`, whose title stands
                in front of each of its windows. None: the first part alone (FirstP).

        Raises:
            ValueError: something that is no pair of texts, by its place.
        """
        texts = as_pairs(pairs)
        if long_documents is None or not long_documents.has_windows:
            short = [(query, as_text(document)) for query, document in texts]
            return self._score(short, batch_size, show_progress_bar)
        scores = track(
            self.document_scorer(long_documents, batch_size).scores(texts),
            description="scoring",
            unit="document",
            enabled=show_progress_bar,
            total=len(texts),
        )
        return np.fromiter(scores, np.float32, len(texts))

    def document_scorer(
        self, long_documents: LongDocuments | None = None, batch_size: int = 32
    ) -> DocumentScorer:
        """What scores any number of documents of any length, one after the other.

        The same object for the same arguments, so that its counts go on, and `predict` uses it too.
        """
        key = long_documents or LongDocuments(), batch_size
        if key not in self._document_scorers:
            self._document_scorers[key] = DocumentScorer(
                key[0], self._pairs, lambda pairs: self._score(pairs, batch_size)
            )
        return self._document_scorers[key]

    def rank(
        self,
        query: str,
        documents: Sequence[Text] | DocumentStates | DeviceStates,
        top_k: int | None = None,
        return_documents: bool = False,
        *,
        batch_size: int | None = None,
        long_documents: LongDocuments | None = None,
    ) -> list[dict[str, Any]]:
        """Documents by falling relevance to one query; ties keep their order.

        Args:
            documents: texts, or states of `encode_documents` or `open_states`, of which only the
                query is computed; `states.select(ids)` are a query's candidates.
            batch_size: as for `predict`, None: 32 texts, or 100 states.
            long_documents: as for `predict`; texts only.

        Returns:
            `[{"corpus_id": position in documents, "score": float, "text": only if asked}, ...]`,
            of states with their "document_id".

        Raises:
            InputError: states that were made for another model, template or budget.
            ValueError: one text in place of several, or options that need texts with states.
        """
        if isinstance(documents, str):
            raise ValueError("documents: got one text; a list of texts is needed")
        if top_k is not None and top_k < 1:
            raise ValueError(f"top_k: got {top_k}; at least 1 is needed, or None for all")
        if isinstance(documents, DocumentStates | DeviceStates):
            refuse_what_needs_texts(return_documents, long_documents)
            return self.document_states.rank(query, documents, top_k, batch_size)
        pairs = [(query, document) for document in documents]
        together = 32 if batch_size is None else batch_size
        scores = self.predict(pairs, together, long_documents=long_documents)
        return [
            {"corpus_id": row, "score": float(scores[row])}
            | ({"text": documents[row]} if return_documents else {})
            for row in np.argsort(-scores, kind="stable")[:top_k].tolist()
        ]

    def encode_documents(
        self,
        texts: Sequence[str] | Mapping[str, str],
        *,
        dtype: StateDType = "float32",
        batch_size: int = 32,
        output: str | Path | None = None,
        show_progress_bar: bool = False,
    ) -> DocumentStates:
        """Read each document once and keep what `rank` and `state_scorer` go on from.

        Args:
            texts: documents, called "0", "1", ..., or a mapping of ids to them.
            dtype: what states are kept in: float32 is exact. The command `jaxrank.encode_documents`
                keeps bfloat16 unless it is told otherwise, and a folder has one of them.
            output: a folder for them, new, or one of this model's states, where documents that are
                there already are not read again. None: they stay in memory.

        Raises:
            InputError: this kind of model or its template has no document states, with the reason;
                `output` has states of another model, of another dtype, or of other texts of these
                ids; a state that is not finite.
        """
        encoder = self.document_states.encoder(dtype, batch_size)
        return encode_texts(texts, encoder, output=output, progress=show_progress_bar)

    def open_states(self, folder: str | Path, *, verify: bool = True) -> DocumentStates:
        """Open states on disk that were made for this model, for `rank` and `state_scorer`.

        Args:
            folder: what `encode_documents`, here or as a command, has written.
            verify: whether every state that is read is compared with its checksum.

        Raises:
            InputError: there are none, they are damaged, or they were made for another model,
                template or budget, by what differs.
        """
        return self.document_states.open(folder, verify=verify)

    def state_scorer(self, batch_size: int = BATCH_SIZE) -> StateScorer:
        """What scores any documents of any states; the same object for the same `batch_size`."""
        return self.document_states.scorer(batch_size)

    def state_identity(self) -> StateIdentity:
        """What this model's document states are made for: weights, template, tokens, budget."""
        return self.document_states.identity

    @cached_property
    def document_states(self) -> StatesOfModel:
        """What makes states and scores from them, with the weights as they are when first used."""
        return StatesOfModel(self.module, self._pairs)

    @property
    def truncation(self) -> TruncationCounts:
        """What has been cut or was empty, over all pairs that this object tokenised.

        A window of a long document makes a pair of its own; documents that are encoded and queries
        that are scored from states make none, but what is cut of them counts.
        """
        return self._pairs.counts

    def _score(
        self, pairs: Sequence[tuple[str, str]], batch_size: int, progress: bool = False
    ) -> np.ndarray:
        if batch_size not in self._scorers:
            self._scorers[batch_size] = Scorer(
                self.module,
                pad_token_id=self._pairs.pad_token_id,
                max_length=self.text.max_length,
                batch_size=batch_size,
            )
        tokenized = self._pairs.encode(pairs)
        return self._scorers[batch_size].score(tokenized, progress=progress)

    def save_pretrained(self, folder: str | Path) -> Path:
        """Write a Hugging Face folder that `from_pretrained` reads back to the same bits.

        A reranker with the `classification` head (of any family that has it) and the template
        `pair` is also read by transformers' AutoModelForSequenceClassification and
        sentence-transformers' CrossEncoder.
        """
        return save(
            folder,
            config=self.config,
            parameters={name: np.asarray(a) for name, a in parameters(self.module).items()},
            tokenizer=self.tokenizer,
            text=self.text,
        )
