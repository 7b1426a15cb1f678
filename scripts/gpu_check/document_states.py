"""Scoring from document states: exact against full passes, and pairs a second by where they are.

Needs transformers besides, whose tokenizers turn texts into ids; without it nothing is checked.
"""

import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxrank.models.implementations import Implementations
from scripts.gpu_check.rows import Row, Sizes, go_on

if TYPE_CHECKING:
    from scripts.document_states.random_models import RandomModel

NEEDED = "transformers"
PRESETS = ("mamba-130m", "mamba2-130m")
SPEED_PRESET = "mamba-130m"
QUERY_TOKENS = 15
EXACT = 1e-3
"""Of scores from float32 states, over the spread of the scores: that is what documents bring in. It
is a hundredth of the scores of a random start, so float32 itself rounds at 1e-5 of it."""
AIM_PAIRS_PER_S = 20_000
FLAT_WITHIN = 1.15
"""How much longer a query may take at the longer documents, states on the device."""


@dataclass(frozen=True)
class Load:
    """What is timed."""

    lengths: tuple[int, int]
    """Tokens of documents."""
    candidates: tuple[int, ...]
    """Of a query; all at once."""
    documents: int
    """Whose states are held."""


FULL = Load(lengths=(512, 4096), candidates=(100, 1000), documents=2000)
TOY = Load(lengths=(16, 48), candidates=(4,), documents=6)


def check_document_states(sizes: Sizes) -> Iterator[Row]:
    """Scores from states in float32 against those of full passes, for both kinds of Mamba."""
    if find_spec(NEEDED) is None:
        yield Row("document_states", "all", ok=None, note=f"needs {NEEDED}")
        return
    for preset in PRESETS:
        yield from go_on("document_states", preset, _compare(preset, sizes))


def bench_document_states(sizes: Sizes) -> Iterator[Row]:
    """Pairs a second in bfloat16, with states on the device, in host memory and on disk."""
    if find_spec(NEEDED) is None:
        yield Row("document_states", "speed", ok=None, note=f"needs {NEEDED}")
        return
    load = TOY if sizes.is_toy else FULL
    with tempfile.TemporaryDirectory(prefix="document_states-") as folder:
        yield from _measure(load, sizes, Path(folder))


def _model(preset: str, longest: int, dtype: Any, sizes: Sizes) -> "RandomModel":
    from scripts.document_states.random_models import RandomModel

    choice = Implementations()
    if preset.startswith("mamba-") and not sizes.has_mosaic:
        choice = Implementations(selective_scan="associative")
    return RandomModel(preset, longest, is_toy=sizes.is_toy, dtype=dtype, implementations=choice)


def _compare(preset: str, sizes: Sizes) -> Iterator[Row]:
    """One row: documents of odd lengths, a query for all of them."""
    from jaxrank.ranking.document_states.encoding import DocumentEncoder
    from jaxrank.ranking.document_states.memory import MemoryStates
    from jaxrank.ranking.document_states.scoring import StateScorer
    from jaxrank.ranking.scoring import Scorer
    from jaxrank.text.tokenize import TokenizedPair

    longest = 40 if sizes.is_toy else 300
    model = _model(preset, longest, jnp.float32, sizes)
    lengths = np.random.default_rng(sizes.seed).integers(3, longest + 1, 12)
    texts = [model.documents(1, int(length), n)[0] for n, length in enumerate(lengths)]
    query = model.query(QUERY_TOKENS)
    (query_ids,) = model.tokenizer.queries([query])
    ids = [np.concatenate([one, query_ids]) for one in model.tokenizer.documents(texts)]
    with jax.default_matmul_precision("highest"):
        scorer = Scorer(model.module, pad_token_id=0, max_length=longest + QUERY_TOKENS)
        want = scorer.score([TokenizedPair(one, np.zeros_like(one)) for one in ids])
        encoder = DocumentEncoder(model.module, model.tokenizer, identity=model.identity)
        states = MemoryStates(model.identity, "float32", encoder.computed_in)
        names = [str(n) for n in range(len(texts))]
        states.add(encoder.encode(list(zip(names, texts, strict=True))))
        got = StateScorer(model.module, model.tokenizer, identity=model.identity).score(
            query, states, names
        )
    error = float(np.max(np.abs(got - want)) / np.ptp(want))
    yield Row(
        "document_states", f"{preset}, {len(texts)} documents", error <= EXACT, error, EXACT,
        note="from float32 states, over the spread of the scores",
    )  # fmt: skip


def _measure(load: Load, sizes: Sizes, folder: Path) -> Iterator[Row]:
    from jaxrank.ranking.document_states.on_device import DeviceStates
    from jaxrank.ranking.document_states.scoring import StateScorer
    from scripts.document_states.candidates import in_memory, on_disk, read_documents
    from scripts.document_states.turns import Side, take_turns

    dtype = jnp.float32 if jax.default_backend() == "cpu" else jnp.bfloat16
    model = _model(SPEED_PRESET, max(load.lengths), dtype, sizes)
    query = model.query(QUERY_TOKENS)
    names = [f"d{n}" for n in range(load.documents)]
    held: dict[tuple[str, int], Any] = {}
    for length in load.lengths:
        encoder, records = read_documents(model, "bfloat16", length)
        memory = in_memory(encoder, records, load.documents)
        held["on the device", length] = DeviceStates(memory)
        held["in host memory", length] = memory
        store = on_disk(folder / str(length), encoder, records, load.documents)
        held["on disk", length] = store
    for candidates in load.candidates:
        scorer = StateScorer(
            model.module, model.tokenizer, batch_size=candidates, identity=model.identity
        )
        drawn = np.random.default_rng(sizes.seed).choice(len(names), candidates, replace=False)
        chosen = [names[place] for place in drawn]
        sides = [
            Side(f"{place} {length}", partial(scorer.score, query, states, chosen))
            for (place, length), states in held.items()
        ]
        timings = take_turns(sides, repeats=sizes.repeats, warmup=2)
        ms = {key: 1e3 * timings[f"{key[0]} {key[1]}"].median_s for key in held}
        for (place, length), median_ms in ms.items():
            pairs_per_s = 1e3 * candidates / median_ms
            # The aim is one for states on the device and enough candidates to fill it.
            is_aim = place == "on the device" and candidates == max(load.candidates)
            yield Row(
                "document_states",
                f"{candidates} candidates of {length} tokens, states {place}",
                ok=sizes.is_toy or not is_aim or pairs_per_s >= AIM_PAIRS_PER_S,
                measured={"pairs_per_s": pairs_per_s, "ms": median_ms}
                | ({"aim": AIM_PAIRS_PER_S} if is_aim else {}),
                note="" if is_aim else "no aim is set for this",
            )
        short, long = (ms["on the device", length] for length in load.lengths)
        yield Row(
            "document_states",
            f"{candidates} candidates, time at {load.lengths[1]} tokens over {load.lengths[0]}",
            ok=sizes.is_toy or long <= FLAT_WITHIN * short,
            measured={"ratio": long / short, "aim": FLAT_WITHIN},
            note="states on the device",
        )
