"""Model FLOPs against counts by hand, rates, and the trace of a few steps."""

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from jaxrank.models.bert import BertConfig
from jaxrank.models.families import get_family
from jaxrank.models.mamba import MambaConfig
from jaxrank.models.module import RerankerConfig, init_module
from jaxrank.training.optimizer import OptimizerConfig, make_optimizer
from jaxrank.training.step import TrainState, init_state
from jaxrank.training.throughput import (
    ModelFlops,
    Throughput,
    count_flops,
    find_peak_tflops,
    traced,
)

BERT = BertConfig(hidden_size=8, num_layers=2, num_heads=2, intermediate_size=32)
# Of a layer: four projections, two of the feed-forward part, their biases, two norms.
LAYER = 4 * (8 * 8 + 8) + (8 * 32 + 32) + (32 * 8 + 8) + 2 * 2 * 8
BERT_PER_TOKEN = 2 * LAYER + 2 * 8  # and the norm of the embeddings


def make_state(config: RerankerConfig, *, trained: Any = nnx.Param) -> TrainState:
    optimizer, _ = make_optimizer(OptimizerConfig(warmup_steps=0), 10)
    return jax.eval_shape(
        lambda: init_state(
            init_module(config, seed=0), optimizer, key=jax.random.key(0), trained=trained
        )
    )[1]


def flops_of(config: RerankerConfig, **options: Any) -> ModelFlops:
    return count_flops(config, make_state(config, **options))


def test_an_encoder_costs_six_a_weight_and_twelve_a_seen_token():
    flops = flops_of(RerankerConfig("bert", BERT))
    tokens = 3 * 10.0
    by_hand = 6 * BERT_PER_TOKEN * tokens + 12 * 2 * 8 * 10 * tokens + 6 * (8 + 1) * 3
    assert flops.of(pairs=3.0, tokens=tokens) == by_hand


def test_a_frozen_weight_costs_four():
    head_alone = flops_of(RerankerConfig("bert", BERT), trained=nnx.PathContains("head"))
    assert head_alone.per_token == 4 * BERT_PER_TOKEN
    assert head_alone.per_pair == 6 * (8 + 1)


def test_a_state_space_model_pays_its_states_and_no_attention():
    config = MambaConfig(hidden_size=8, num_layers=3, state_size=4)
    flops = flops_of(RerankerConfig("mamba", config))
    state = make_state(RerankerConfig("mamba", config))
    sizes = {path: value.get_value().size for path, value in nnx.to_flat_state(state.parameters)}
    weights = sum(
        size for path, size in sizes.items() if path[-1] != "embedding" and path[0] != "head"
    )
    assert flops.per_token == 6 * weights + 15 * (16 * 4) * 3
    twice = 2 * flops.of(pairs=1.0, tokens=50.0)
    assert flops.of(pairs=1.0, tokens=100.0) == twice - flops.per_pair


def test_a_decoder_that_reads_one_token_costs_once_a_pair():
    config = get_family("t5").presets["t5-tiny"]
    one = flops_of(RerankerConfig("t5", config, head="linear"))
    text = flops_of(RerankerConfig("t5", config, head="classification"))
    assert one.full_layers == 2
    assert text.full_layers == 2 + 2 * 2
    assert one.per_pair > 50 * text.per_pair / 10
    assert one.per_token < 0.7 * text.per_token


def test_local_layers_see_their_window_alone():
    flops = ModelFlops(0.0, 0.0, 12.0, full_layers=1, local_layers=2, window=10)
    assert flops.of(pairs=1.0, tokens=100.0) == 12 * 100 * (100 + 2 * 10)
    assert flops.of(pairs=10.0, tokens=50.0) == 12 * 50 * (5 + 2 * 5)


def test_rates_are_of_real_tokens_and_of_the_devices_peak():
    flops = ModelFlops(0.0, 1e9, 0.0, 0)
    sums = {"pairs": 64.0, "tokens": 3000.0, "padded_tokens": 4000.0, "steps": 2.0}
    values = Throughput(flops, devices=2, peak_tflops=3.0).rates(sums, 0.5)
    memory_gib = values.pop("memory_gib")
    np.testing.assert_allclose(
        [values.pop(name) for name in ("pairs_per_s", "tokens_per_s", "padding_share")],
        [128, 6000, 0.25],
    )
    np.testing.assert_allclose(values.pop("model_tflops_per_s"), 6.0)
    np.testing.assert_allclose(values.pop("model_flops_utilisation"), 1.0)
    assert not values
    assert 0.05 < memory_gib < 1000
    assert "model_flops_utilisation" not in Throughput(flops).rates(sums, 0.5)


@pytest.mark.parametrize(
    ("kind", "peak"),
    [
        ("NVIDIA H100 80GB HBM3", 989.0),
        ("NVIDIA H100 PCIe", 756.0),
        ("NVIDIA A100-SXM4-80GB", 312.0),
        ("NVIDIA RTX A6000", 154.8),
        ("TPU v5 lite", 197.0),
        ("TPU v5", 459.0),
        ("NVIDIA A1000", None),
        ("cpu", None),
    ],
)
def test_peaks_are_found_by_the_devices_name(kind: str, peak: float | None):
    assert find_peak_tflops(kind) == peak


class TestTrace:
    def run(self, folder: Path | None, calls: int) -> int:
        optimizer, _ = make_optimizer(OptimizerConfig(warmup_steps=0), 10)
        state = init_state(
            init_module(RerankerConfig("bert", BERT), seed=0), optimizer, key=jax.random.key(0)
        )[1]
        done = 0

        def train_step(state: TrainState, batch: Any) -> Any:
            nonlocal done
            done += 1
            return state, {"loss": jnp.float32(0)}

        with traced(train_step, folder, after=1, steps=1) as step:
            for _ in range(calls):
                state, _ = step(state, {})
        return done

    def test_a_trace_of_the_asked_steps_is_written(self, tmp_path: Path):
        assert self.run(tmp_path / "profile", 3) == 3
        assert len(list((tmp_path / "profile").rglob("*.xplane.pb"))) == 1

    def test_a_run_that_ends_within_it_ends_it(self, tmp_path: Path):
        with pytest.raises(ZeroDivisionError):
            optimizer, _ = make_optimizer(OptimizerConfig(warmup_steps=0), 10)
            state = init_state(
                init_module(RerankerConfig("bert", BERT), seed=0), optimizer, key=jax.random.key(0)
            )[1]
            with traced(lambda state, batch: (1 / 0, {}), tmp_path, after=0, steps=2) as step:
                step(state, {})
        jax.profiler.start_trace(tmp_path / "next")
        jax.profiler.stop_trace()

    @pytest.mark.parametrize(
        ("calls", "line"),
        [(0, "no trace"), (2, "no trace"), (3, "a trace of 1, "), (4, None)],
    )
    def test_too_few_steps_for_a_trace_are_spoken_of(
        self, calls: int, line: str | None, tmp_path: Path
    ):
        optimizer, _ = make_optimizer(OptimizerConfig(warmup_steps=0), 10)
        module = init_module(RerankerConfig("bert", BERT), seed=0)
        state = init_state(module, optimizer, key=jax.random.key(0))[1]
        lines: list[str] = []
        options: dict[str, Any] = {"after": 2, "steps": 2, "say": lines.append}
        with traced(lambda state, batch: (state, {}), tmp_path, **options) as step:
            for _ in range(calls):
                state, _ = step(state, {})
        if line is None:
            assert not lines
        else:
            (said,) = lines
            assert said.startswith(f"training.profile: {line}")
            assert f"after {calls} steps" in said

    def test_a_trace_that_cannot_begin_shows_why(
        self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ):
        def refuse(folder: Path) -> None:
            raise OSError("no room")

        monkeypatch.setattr(jax.profiler, "start_trace", refuse)
        with pytest.raises(OSError, match="no room"):
            self.run(tmp_path, 3)

    def test_nothing_is_written_unasked(self):
        assert self.run(None, 3) == 3
