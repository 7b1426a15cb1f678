"""The parity certificate: what transformers in PyTorch and we compute on the same real texts.

Hidden states are compared layer by layer at real tokens, in float32. The absolute difference is the
largest over all channels; the relative one is the largest over tokens of
`norm(ours - theirs) / norm(theirs)`, with the Euclidean norm of a token's vector. For scores it is
the largest difference over the largest score. Both sides get the same token ids.
"""

import itertools
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from ckpt_convert.config_format import write_config
from ckpt_convert.load import LoadedModel, find_folder
from ckpt_convert.rules import canonical_name, export_weights
from ckpt_convert.source_config import ARCHITECTURES, read_source_config
from ckpt_convert.weight_files import open_weights
from jaxrank.data.collection import Collection
from jaxrank.errors import InputError
from jaxrank.files import read_lines
from jaxrank.models.families import get_family
from jaxrank.models.module import RerankerModule, build_module
from jaxrank.progress import progress_bar
from jaxrank.text.tokenize import PairTokenizer, TruncationCounts, pad_pairs

Forward = Callable[[dict[str, np.ndarray]], tuple[np.ndarray, np.ndarray]]
"""A batch of `pad_pairs` -> hidden states (layers + 1, B, L, D) and scores (B,)."""

_TOLERANCE = 1e-4
_BATCH_SIZE = 8
_LENGTH_STEP = 64  # every length is one compilation


@dataclass(frozen=True)
class Difference:
    """How far apart the two sides are at one place."""

    where: str
    max_absolute: float
    max_relative: float


@dataclass(frozen=True)
class Certificate:
    """All differences between a checkpoint in PyTorch and in JAX."""

    source: str
    family: str
    head: str
    pairs: int
    tokens: int
    truncation: TruncationCounts
    layers: tuple[Difference, ...]
    scores: Difference
    tolerance: float
    versions: dict[str, str]

    @property
    def worst(self) -> float:
        """The largest relative difference of all."""
        return max(row.max_relative for row in (*self.layers, self.scores))

    @property
    def has_passed(self) -> bool:
        """Whether every relative difference is within the tolerance."""
        return self.worst <= self.tolerance

    def as_dict(self) -> dict[str, Any]:
        """For JSON; the norms are named."""
        norms = (
            "relative: max over tokens of |ours - theirs|_2 / |theirs|_2; scores: max|d| / max|s|"
        )
        verdict = {"worst_relative": self.worst, "has_passed": self.has_passed}
        return {**asdict(self), **verdict, "norms": norms}

    def table(self) -> str:
        """For people: one line a layer."""
        rows = [f"{'where':<12} {'max absolute':>13} {'max relative':>13}"]
        rows += [
            f"{row.where:<12} {row.max_absolute:>13.2e} {row.max_relative:>13.2e}"
            for row in (*self.layers, self.scores)
        ]
        return "\n".join(rows)


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


def certify(
    source: str | Path,
    loaded: LoadedModel,
    pairs: Sequence[tuple[str, str]],
    *,
    tolerance: float = _TOLERANCE,
    progress: bool = False,
) -> Certificate:
    """Compare `loaded`, which `load(source)` gave, with transformers reading the same folder."""
    tokenizer = PairTokenizer(loaded.tokenizer, loaded.text)
    encoded, truncation = tokenizer.encode_and_count(pairs)
    tokenized = sorted(encoded, key=lambda pair: len(pair.input_ids))
    ours = _our_forward(build_module(loaded.config, loaded.parameters))
    theirs = _torch_forward(find_folder(source), loaded)
    count = loaded.config.backbone.num_layers + 1
    absolute, relative = np.zeros(count), np.zeros(count)
    scores = []
    with progress_bar(
        description="comparing", unit="pair", enabled=progress, total=len(pairs)
    ) as bar:
        for start in range(0, len(tokenized), _BATCH_SIZE):
            chunk = tokenized[start : start + _BATCH_SIZE]
            length = -(-len(chunk[-1].input_ids) // _LENGTH_STEP) * _LENGTH_STEP
            batch = pad_pairs(chunk, length=length, pad_token_id=tokenizer.pad_token_id)
            (our_hidden, our_scores), (their_hidden, their_scores) = ours(batch), theirs(batch)
            difference = (our_hidden - their_hidden)[:, batch["mask"]]
            size = np.linalg.norm(their_hidden[:, batch["mask"]], axis=-1)
            absolute = np.maximum(absolute, np.abs(difference).max((1, 2)))
            relative = np.maximum(relative, (np.linalg.norm(difference, axis=-1) / size).max(1))
            scores.append((our_scores, their_scores))
            bar.update(len(chunk))
    our_all, their_all = (np.concatenate(side) for side in zip(*scores, strict=True))
    largest = float(np.abs(our_all - their_all).max())
    names = [f"layer {index}" for index in range(1, count)]
    is_last_normed = ARCHITECTURES[loaded.config.family].has_final_norm
    names = [*names, "final norm"] if is_last_normed else ["embeddings", *names]
    return Certificate(
        source=str(source),
        family=loaded.config.family,
        head=loaded.config.head,
        pairs=len(pairs),
        tokens=sum(len(pair.input_ids) for pair in tokenized),
        truncation=truncation,
        layers=tuple(map(Difference, names, absolute.tolist(), relative.tolist())),
        scores=Difference("scores", largest, largest / float(np.abs(their_all).max())),
        tolerance=tolerance,
        versions={name: version(name) for name in ("jax", "flax", "torch", "transformers")},
    )


def _our_forward(module: RerankerModule) -> Forward:
    graph, state = nnx.split(module)

    @jax.jit
    def forward(state: Any, batch: dict[str, jax.Array]) -> tuple[jax.Array, jax.Array]:
        model = nnx.merge(graph, state)
        encoded = model.backbone.encode(**batch, return_hidden_states=True)
        assert isinstance(encoded, tuple)
        return encoded[1], model(**batch)

    def run(batch: dict[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
        # On a GPU float32 products would be rounded to TF32.
        with jax.default_matmul_precision("highest"):
            hidden, scores = forward(state, {name: jnp.asarray(a) for name, a in batch.items()})
        return np.asarray(hidden), np.asarray(scores)

    return run


def _torch_forward(folder: Path, loaded: LoadedModel) -> Forward:
    try:
        import torch
    except ImportError:
        raise InputError(
            "check: PyTorch is not installed; pip install 'jaxrank[convert]'"
        ) from None

    with _quiet_transformers():
        model = _torch_model(folder, loaded).eval()

    @torch.no_grad()
    def run(batch: dict[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
        mask = torch.from_numpy(batch["mask"])
        inputs = {
            "input_ids": torch.from_numpy(batch["input_ids"]).long(),
            "attention_mask": mask.long(),
        }
        if loaded.config.family == "bert":
            inputs["token_type_ids"] = torch.from_numpy(batch["token_type_ids"]).long()
        with _quiet_transformers():
            output = model(**inputs, output_hidden_states=True)
        hidden = torch.stack(output.hidden_states)
        if loaded.config.head == "classification":
            scores = output.logits[:, 0]
        else:
            is_first = get_family(loaded.config.family).pooling == "first"
            last = torch.zeros(len(mask)).long() if is_first else mask.sum(1) - 1
            pooled = hidden[-1][torch.arange(len(mask)), last]
            kernel, bias = (loaded.parameters[f"head.score.{name}"] for name in ("kernel", "bias"))
            scores = (pooled @ torch.tensor(kernel) + torch.tensor(bias))[:, 0]
        return hidden.numpy(), scores.numpy()

    return run


def _torch_model(folder: Path, loaded: LoadedModel) -> Any:
    """Transformers' class for this folder, reading config and names in its own way where it can.

    The class is named here, never by the folder, whose config.json has passed our allow-list.
    """
    import torch
    import transformers

    architecture = ARCHITECTURES[loaded.config.family]
    table = architecture.tables[loaded.config.head]
    weights = open_weights(folder)
    names = {canonical_name(table, name): name for name in weights.shapes}
    model_class = getattr(transformers, architecture.classes[loaded.config.head])
    if read_source_config(folder, head=loaded.config.head).layout == "state-spaces":
        config = write_config(architecture.config, loaded.config.backbone)
        model = model_class(model_class.config_class(**config))
        used = {name: names[name] for name in model.state_dict()}
        read = {name: torch.from_numpy(weights.read(source)) for name, source in used.items()}
        model.load_state_dict(read, strict=True)
        return model
    model = model_class.from_pretrained(
        folder, num_labels=1, dtype=torch.float32, use_safetensors=True, local_files_only=True
    )
    # A head that the folder lacks started at random, differently on each side: take ours.
    exported = export_weights(table, loaded.parameters)
    fresh = {n: torch.tensor(a) for n, a in exported.items() if n not in names}
    model.load_state_dict(fresh, strict=False)
    return model


@contextmanager
def _quiet_transformers() -> Iterator[None]:
    """No load reports, bars and hints at faster kernels; `load` has said what matters."""
    from transformers.utils import logging

    level, had_bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if had_bars:
            logging.enable_progress_bar()
