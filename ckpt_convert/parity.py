"""The parity certificate: what transformers in PyTorch and we compute on the same real texts.

Hidden states are compared layer by layer at real tokens, in float32. The absolute difference is the
largest over all channels; the relative one is the largest over tokens of
`norm(ours - theirs) / norm(theirs)`, with the Euclidean norm of a token's vector. For scores it is
the largest difference over the largest score. Both sides get the same token ids.
"""

import itertools
import math
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from scipy.stats import kendalltau

from ckpt_convert.architecture import state_names
from ckpt_convert.architectures import ARCHITECTURES
from ckpt_convert.certificate import Certificate, Difference
from ckpt_convert.load import LoadedModel
from ckpt_convert.network import find_folder
from ckpt_convert.pickle_files import opened_weights
from ckpt_convert.source_config import read_source_config
from ckpt_convert.torch_oracle import TorchReranker
from ckpt_convert.weight_files import Weights
from jaxrank.data.collection import Collection
from jaxrank.errors import InputError
from jaxrank.files import file_digest, read_lines
from jaxrank.models.module import (
    RerankerConfig,
    RerankerModule,
    build_module,
    parameter_shapes,
)
from jaxrank.progress import progress_bar
from jaxrank.text.tokenize import PairTokenizer, pad_pairs

Forward = Callable[[dict[str, np.ndarray]], tuple[list[np.ndarray], np.ndarray]]
"""A batch of `pad_pairs` -> hidden states, each (B, L, D), and scores (B,)."""

MOST_PARAMETERS = 500_000_000
"""Of a model that is compared without being asked for twice."""

_TOLERANCE = 1e-4
_BATCH_SIZE = 8
_LENGTHS = (64, 128, 256, 512)  # every length is one compilation
_MOST_NUMBERS = 1 << 26  # in the hidden states of one batch, on each side: 256 MB
_BYTES_PER_PARAMETER = 12  # as it was read, in PyTorch and in JAX
_PACKAGES = ("jaxrank", "jax", "flax", "numpy", "torch", "transformers", "tokenizers")


def read_pairs(path: str | Path, *, limit: int) -> list[tuple[str, str]]:
    """Up to `limit` pairs: lines `query TAB document`, or queries and documents of a collection.

    Of a collection, documents are taken at even distances, so that short and long ones come.
    """
    path = Path(path)
    if path.is_dir():
        collection = Collection.open(path)
        ids = list(collection.documents)
        queries = itertools.islice(itertools.cycle(collection.queries.values()), limit)
        chosen = ids[:: max(1, len(ids) // limit)][:limit]
        return [(q, collection.documents[i]) for q, i in zip(queries, chosen, strict=False)]
    pairs = []
    for number, line in itertools.islice(read_lines(path), limit):
        query, separator, document = line.partition("\t")
        if not separator:
            raise InputError(f"{path}:{number}: no TAB; needed is `query TAB document`")
        pairs.append((query, document))
    if not pairs:
        raise InputError(f"{path}: empty; needed are lines `query TAB document`")
    return pairs


def check_size(source: str | Path, *, head: str | None = None, allow_pickle: bool = False) -> None:
    """Refuse a model that takes long and much memory to compare, before its weights are read."""
    folder = find_folder(source, allow_pickle=allow_pickle)
    shapes = parameter_shapes(read_source_config(folder, head=head).config)
    count = sum(math.prod(spec.shape) for spec in shapes.values())
    if count > MOST_PARAMETERS:
        raise InputError(
            f"{source}: {count:,} parameters; comparing them takes about "
            f"{_BYTES_PER_PARAMETER * count / 1e9:.0f} GB of memory, pass --full to do it"
        )


def certify(
    source: str | Path,
    loaded: LoadedModel,
    pairs: Sequence[tuple[str, str]],
    *,
    texts: str = "",
    tolerance: float = _TOLERANCE,
    allow_pickle: bool = False,
    progress: bool = False,
) -> Certificate:
    """Compare `loaded`, which `load(source)` gave, with transformers reading the same folder.

    Args:
        texts: where the pairs are from, for the certificate.
        tolerance: largest relative difference that passes.
        allow_pickle: as in `load`.
    """
    if loaded.added_tokens:
        raise InputError(
            f"{source}: template {loaded.text.template} adds tokens that the folder's embedding "
            "lacks; import it with that template, then check what was written"
        )
    tokenizer = PairTokenizer(loaded.tokenizer, loaded.text)
    encoded, truncation = tokenizer.encode_and_count(pairs)
    tokenized = sorted(encoded, key=lambda pair: -len(pair.input_ids))
    ours = _our_forward(build_module(loaded.config, loaded.parameters))
    folder = find_folder(source, allow_pickle=allow_pickle)
    with opened_weights(folder, allow_pickle=allow_pickle) as weights:
        theirs = _torch_forward(weights, loaded)
        digests = {path.name: file_digest(path) for path in weights.files}
    names = _state_names(loaded.config)
    absolute, relative = np.zeros(len(names)), np.zeros(len(names))
    scores = []
    with progress_bar(
        description="comparing", unit="pair", enabled=progress, total=len(pairs)
    ) as bar:
        start = 0
        while start < len(tokenized):
            length = _padded(len(tokenized[start].input_ids), loaded.config)
            numbers = length * loaded.config.backbone.hidden_size * len(names)
            chunk = tokenized[start : start + max(1, min(_BATCH_SIZE, _MOST_NUMBERS // numbers))]
            batch = pad_pairs(chunk, length=length, pad_token_id=tokenizer.pad_token_id)
            (our_hidden, our_scores), (their_hidden, their_scores) = ours(batch), theirs(batch)
            for index, sides in enumerate(zip(our_hidden, their_hidden, strict=True)):
                # numpy's maximum, unlike Python's, keeps a NaN.
                worst = _compare(*sides, batch["mask"])
                absolute[index] = np.maximum(absolute[index], worst[0])
                relative[index] = np.maximum(relative[index], worst[1])
            scores.append((our_scores, their_scores))
            start += len(chunk)
            bar.update(len(chunk))
    our_all, their_all = (np.concatenate(side) for side in zip(*scores, strict=True))
    largest = float(np.abs(our_all - their_all).max())
    return Certificate(
        # Of a folder its name alone: the certificate may be published with it.
        source=Path(source).resolve().name if Path(source).is_dir() else str(source),
        family=loaded.config.family,
        head=loaded.config.head,
        dtype="float32",
        stored_dtypes=weights.dtypes,
        weights=digests,
        texts=texts,
        pairs=len(pairs),
        tokens=sum(len(pair.input_ids) for pair in tokenized),
        truncation=truncation,
        layers=tuple(map(Difference, names, absolute.tolist(), relative.tolist())),
        scores=Difference("scores", largest, largest / float(np.abs(their_all).max())),
        kendall_tau=_kendall_tau(our_all, their_all),
        tolerance=tolerance,
        versions={name: version(name) for name in _PACKAGES},
    )


def _padded(length: int, config: RerankerConfig) -> int:
    """The length that a batch is padded to: one of a few, none beyond the model's positions."""
    fitting = [step for step in _LENGTHS if step >= length]
    wanted = fitting[0] if fitting else -(-length // _LENGTHS[-1]) * _LENGTHS[-1]
    return min(wanted, config.backbone.max_length or wanted)


def _kendall_tau(ours: np.ndarray, theirs: np.ndarray) -> float | None:
    """Between the two rankings of all pairs; None where one side ranks nothing."""
    if len(ours) < 2:
        return None
    tau = float(kendalltau(ours, theirs).statistic)
    return None if math.isnan(tau) else tau


def _compare(ours: np.ndarray, theirs: np.ndarray, mask: np.ndarray) -> tuple[float, float]:
    """Largest absolute and relative difference at real tokens; a decoder's one step is real."""
    real = mask if theirs.shape[1] == mask.shape[1] else np.ones(theirs.shape[:2], bool)
    difference, size = (ours - theirs)[real], np.linalg.norm(theirs[real], axis=-1)
    relative = np.linalg.norm(difference, axis=-1) / size
    return float(np.abs(difference).max()), float(relative.max())


def _state_names(config: RerankerConfig) -> list[str]:
    """Names of transformers' hidden states, an encoder's before a decoder's."""
    order, num_layers = ARCHITECTURES[config.family].hidden_states, config.backbone.num_layers
    if config.backbone.decoder_layers is None:
        return state_names(order, num_layers)
    decoder = state_names(order, config.backbone.decoder_layers)
    encoder = state_names(order, num_layers)
    return [f"encoder {name}" for name in encoder] + [f"decoder {name}" for name in decoder]


def _our_forward(module: RerankerModule) -> Forward:
    graph, state = nnx.split(module)

    @jax.jit
    def forward(state: Any, batch: dict[str, jax.Array]) -> Any:
        model = nnx.merge(graph, state)
        hidden, states = model.encode(**batch, return_hidden_states=True)
        return states, model.head(hidden, mask=batch["mask"])

    def run(batch: dict[str, np.ndarray]) -> tuple[list[np.ndarray], np.ndarray]:
        # On a GPU float32 products would be rounded to TF32.
        with jax.default_matmul_precision("highest"):
            hidden, scores = forward(state, {name: jnp.asarray(a) for name, a in batch.items()})
        return [np.asarray(state) for state in hidden], np.asarray(scores)

    return run


def _torch_forward(weights: Weights, loaded: LoadedModel) -> Forward:
    reranker = TorchReranker.from_folder(weights.folder, loaded.config, loaded.parameters)
    import torch

    @torch.no_grad()
    def run(batch: dict[str, np.ndarray]) -> tuple[list[np.ndarray], np.ndarray]:
        states, scores = reranker(batch)
        return [state.numpy() for state in states], scores.numpy()

    return run
