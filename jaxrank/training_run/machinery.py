"""What trains: the state on its devices and the compiled step, and what goes with them."""

from collections.abc import Callable, Mapping
from typing import NamedTuple

import jax
import numpy as np

from jaxrank.shapes import Array
from jaxrank.training.devices import on_host, put_state, state_shardings
from jaxrank.training.memory import MeasuredStep
from jaxrank.training.step import TrainState
from jaxrank.training.throughput import Throughput, count_flops, find_peak_tflops
from jaxrank.training.window import Rates
from jaxrank.training_run.batch_size import batch_putter, longest_batch
from jaxrank.training_run.prepare import Prepared
from jaxrank.training_run.steps import first_state, recipe_step


class Machinery(NamedTuple):
    """A state at step 0 and what takes it further."""

    state: TrainState
    train_step: MeasuredStep
    put_batch: Callable[[Mapping[str, np.ndarray]], Mapping[str, Array]]
    rates: Rates


def build_machinery(run: Prepared, *, say: Callable[[str], None]) -> Machinery:
    """Lay the state out on the devices and make the step.

    Raises:
        InputError: on an accelerator, the longest batch does not fit its memory.
    """
    recipe, start = run.recipe, run.start
    with on_host(run.mesh):
        graphdef, state = first_state(recipe, start, run.optimizer, release=True)
    shardings = None
    put = batch_putter(recipe, run.mesh)
    if run.mesh is not None:
        shardings = state_shardings(state, run.mesh)
        state = put_state(state, shardings)
    step = recipe_step(recipe, graphdef, run.optimizer, run.schedule, state_sharding=shardings)
    train_step = MeasuredStep(step, say=say)
    throughput = Throughput(
        count_flops(start.config, state),
        devices=jax.device_count(),
        peak_tflops=find_peak_tflops(jax.devices()[0].device_kind),
    )
    if jax.default_backend() != "cpu" and not recipe.data.packing:
        longest = longest_batch(recipe, max_length=start.text.max_length, sides=run.sides)
        train_step.measure(state, put(longest))
    return Machinery(state, train_step, put, throughput.rates)
