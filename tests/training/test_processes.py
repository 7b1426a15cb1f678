"""Where a process stands among those of its run, and how it begins to be one of them."""

import atexit
from collections.abc import Iterator
from typing import Any

import jax
import pytest
from jax._src.distributed import global_state

from jaxrank.errors import InputError
from jaxrank.training import processes
from jaxrank.training.processes import Place, find_place, start_processes

PLAIN = {
    "JAX_COORDINATOR_ADDRESS": "host0:1234",
    "JAX_NUM_PROCESSES": "4",
    "JAX_PROCESS_ID": "3",
}
SLURM = {
    "SLURM_JOB_ID": "77",
    "SLURM_STEP_NODELIST": "node[01-02]",
    "SLURM_NTASKS": "16",
    "SLURM_PROCID": "9",
    "SLURM_LOCALID": "1",
}


@pytest.mark.parametrize(
    ("environment", "place"),
    [
        ({}, None),
        (PLAIN, Place("host0:1234", 4, 3)),
        (PLAIN | {"JAX_COORDINATOR_ADDRESS": "[fd00::1]:1234"}, Place("[fd00::1]:1234", 4, 3)),
        (SLURM, Place(None, 16, 9)),
        # Plain variables win, and one process of them switches Slurm's off.
        (SLURM | PLAIN, Place("host0:1234", 4, 3)),
        (SLURM | {"JAX_NUM_PROCESSES": "1"}, None),
        # In the batch script itself, outside srun, there is one process.
        (SLURM | {"SLURM_STEP_NUM_TASKS": "1"}, None),
        (SLURM | {"SLURM_STEP_NODELIST": ""}, None),
        (SLURM | {"SLURM_NTASKS": "1"}, None),
    ],
)
def test_the_environment_says_which_process_this_is(
    environment: dict[str, str], place: Place | None
):
    assert find_place(environment) == place


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"JAX_PROCESS_ID": ""}, "given without JAX_PROCESS_ID; several processes need all three"),
        ({"JAX_COORDINATOR_ADDRESS": ""}, "JAX_NUM_PROCESSES, JAX_PROCESS_ID: given without"),
        ({"JAX_COORDINATOR_ADDRESS": "host0"}, "got 'host0'; host:port is needed"),
        ({"JAX_PROCESS_ID": "4"}, r"JAX_PROCESS_ID: got 4; .* JAX_NUM_PROCESSES - 1 \(3\)"),
        ({"JAX_NUM_PROCESSES": "four"}, "JAX_NUM_PROCESSES: got 'four'; a whole number"),
    ],
)
def test_variables_that_do_not_fit_are_one_line(change: dict[str, str], message: str):
    with pytest.raises(InputError, match=message) as error:
        find_place(PLAIN | change)
    assert "\n" not in str(error.value)


class TestStart:
    """The start of a process, with a stand-in for JAX's coordinator."""

    @pytest.fixture(autouse=True)
    def leaving(self, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[tuple[Any, ...]]]:
        """What is registered to be done at the end of the process."""
        registered: list[tuple[Any, ...]] = []
        monkeypatch.setattr(atexit, "register", lambda *call: registered.append(call))
        monkeypatch.setattr(jax.distributed, "initialize", lambda **options: None)
        monkeypatch.setattr(global_state, "coordinator_address", "host0:1234")
        before = jax.config.jax_enable_preemption_service
        yield registered
        jax.config.update("jax_enable_preemption_service", before)

    def test_jax_leaves_sigterm_alone(self, monkeypatch: pytest.MonkeyPatch):
        found: list[bool] = []
        monkeypatch.setattr(
            jax.distributed,
            "initialize",
            lambda **options: found.append(jax.config.jax_enable_preemption_service),
        )
        monkeypatch.setattr(processes, "_meet", lambda place: None)
        jax.config.update("jax_enable_preemption_service", True)
        start_processes(PLAIN)
        assert found == [False]

    def test_a_coordinator_that_does_not_answer_is_one_line_and_a_quick_end(
        self, monkeypatch: pytest.MonkeyPatch, leaving: list[tuple[Any, ...]]
    ):
        class Client:
            def blocking_key_value_get(self, key: str, timeout_ms: int) -> str:
                raise jax.errors.JaxRuntimeError("DEADLINE_EXCEEDED: no key\nAdditional: 3")

        monkeypatch.setattr(processes, "_client", Client)
        with pytest.raises(InputError, match="process 3: process 0 does not say where") as error:
            start_processes(PLAIN)
        assert "\n" not in str(error.value)
        assert leaving == [(processes._leave, 2)]

    @pytest.mark.parametrize(("error", "status"), [(InputError("no way"), 2), (KeyError(), 1)])
    def test_a_failed_meeting_does_not_wait_for_the_others(
        self,
        error: Exception,
        status: int,
        monkeypatch: pytest.MonkeyPatch,
        leaving: list[tuple[Any, ...]],
    ):
        def fail(place: Place) -> None:
            raise error

        monkeypatch.setattr(processes, "_meet", fail)
        with pytest.raises(type(error)):
            start_processes(PLAIN)
        assert leaving == [(processes._leave, status)]
