"""Several processes as one run: how they find one another, agree, and end together.

Environment variables say so, and nothing else: either all of

    JAX_COORDINATOR_ADDRESS   host:port of process 0, where nothing listens yet
    JAX_NUM_PROCESSES         how many
    JAX_PROCESS_ID            which of them this is, from 0 on

or those that Slurm's srun sets. Without them a run is one process, and all of this costs nothing.
"""

import atexit
import os
import secrets
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NoReturn

import jax

from jaxrank.errors import InputError, TrainingStoppedError
from jaxrank.training.peers import SILENCE_S, Peers, accept, connect, listen

MEETING_S = 300
"""How long processes wait for one another at the start."""

# JAX's own watch is the net under ours. It acts after half this time at the earliest, with a stack
# trace, so that half must be longer than ours.
_HEARTBEAT_S = int(SILENCE_S * 2) + 10
_REASON_S = 5.0
_PARTING_S = 3600
_VARIABLES = ("JAX_COORDINATOR_ADDRESS", "JAX_NUM_PROCESSES", "JAX_PROCESS_ID")
_SLURM = (
    "SLURM_JOB_ID", "SLURM_STEP_NODELIST", "SLURM_NTASKS", "SLURM_PROCID", "SLURM_LOCALID",
)  # fmt: skip
_KEY = "jaxrank/peers"
_PREEMPTION_SERVICE = "jax_enable_preemption_service"
_EXIT_BAD_INPUT, _EXIT_ERROR = 2, 1


@dataclass(frozen=True)
class Place:
    """Where a process stands among those of its run."""

    address: str | None
    """host:port of process 0; None: JAX finds it out from Slurm."""
    count: int
    index: int


def find_place(environment: Mapping[str, str]) -> Place | None:
    """What the environment says; None for a run of one process.

    Raises:
        InputError: variables that are missing or do not fit one another.
    """
    given = [name for name in _VARIABLES if environment.get(name)]
    if "JAX_NUM_PROCESSES" in given and _number(environment, "JAX_NUM_PROCESSES") == 1:
        return None
    if given:
        return _plain_place(environment)
    if not all(environment.get(name) for name in _SLURM):
        return None
    # Outside srun, in the batch script itself, there is one process whatever the job has.
    count = _number(environment, "SLURM_NTASKS")
    if count == 1 or environment.get("SLURM_STEP_NUM_TASKS") == "1":
        return None
    return Place(None, count, _number(environment, "SLURM_PROCID"))


@contextmanager
def processes_together(environment: Mapping[str, str] | None = None) -> Iterator[None]:
    """Make the processes one run, for as long as the body takes; before any use of a device.

    When one ends by an error or is lost, the others end too, with a line that says which and why.

    Raises:
        InputError: variables that do not fit one another, or the others cannot be reached.
    """
    peers = start_processes(environment)
    if peers is None:
        yield
        return
    try:
        yield
    except (TrainingStoppedError, SystemExit):
        _part(peers)
        raise
    except BaseException as error:
        if isinstance(error, jax.errors.JaxRuntimeError):
            # Another process may have been lost, and then `peers` says so and ends this one.
            time.sleep(_REASON_S)
        status = _exit_status(error)
        name = "" if status == _EXIT_BAD_INPUT else f"{type(error).__name__}: "
        peers.fail(f"{name}{error}", status)
        # Handlers run last in, first out: JAX's own would wait for the other processes.
        atexit.register(_leave, status)
        raise
    _part(peers)


def start_processes(environment: Mapping[str, str] | None = None) -> Peers | None:
    """Meet the other processes of the run; None where this is the only one."""
    place = find_place(os.environ if environment is None else environment)
    if place is None:
        return None
    try:
        _initialize(place)
        return _meet(place)
    except Exception as error:
        # JAX's own handler would wait for the other processes.
        atexit.register(_leave, _exit_status(error))
        raise


def _initialize(place: Place) -> None:
    """Connect with JAX's coordinator, which process 0 starts."""
    if hasattr(jax.config, _PREEMPTION_SERVICE):
        # It would swallow SIGTERM from here on until a training has handlers of its own.
        jax.config.update(_PREEMPTION_SERVICE, False)
    timer = threading.Timer(MEETING_S, _give_up, (place,))
    timer.daemon = True
    timer.start()
    try:
        jax.distributed.initialize(
            coordinator_address=place.address,
            # What is None, JAX finds out.
            num_processes=None if place.address is None else place.count,
            process_id=None if place.address is None else place.index,
            # Later than the timer, since JAX ends the process with a stack trace.
            initialization_timeout=2 * MEETING_S,
            heartbeat_timeout_seconds=_HEARTBEAT_S,
            # The others wait there while process 0 writes the last files.
            shutdown_timeout_seconds=_PARTING_S,
        )
    except (RuntimeError, ValueError) as error:
        where = place.address or "Slurm"
        raise InputError(f"{where}: the processes cannot meet ({_one_line(error)})") from None
    finally:
        timer.cancel()


def process_number() -> int:
    """Number of this process in its run; asks no device, so it can come before all else."""
    place = find_place(os.environ)
    return 0 if place is None else place.index


def is_first_process() -> bool:
    """Whether this process is the one that writes and prints."""
    return jax.process_index() == 0


def wait_for_all(name: str) -> None:
    """Wait until every process is here; `name` tells such places apart, each met once.

    It goes by way of JAX's coordinator and not of the devices, where whoever comes first to a
    first meeting waits no more than 30 s on a CPU.
    """
    if jax.process_count() > 1:
        _client().wait_at_barrier(f"jaxrank/{name}", _PARTING_S * 1000)


def _meet(place: Place) -> Peers:
    """Connect every process with process 0; where it listens is told by JAX's key-value store."""
    from jax._src.distributed import global_state

    client = _client()
    assert global_state.coordinator_address is not None
    if place.index == 0:
        server, token = listen(), secrets.token_hex(8)
        client.key_value_set(_KEY, f"{server.getsockname()[1]} {token}")
        try:
            connections = accept(server, token, count=place.count, timeout_s=MEETING_S)
        except TimeoutError:
            raise InputError(
                f"process 0: the other {place.count - 1} processes did not all connect; every host "
                "must reach it on any port"
            ) from None
        return Peers(0, place.count, connections)
    try:
        answer = client.blocking_key_value_get(_KEY, MEETING_S * 1000)
    except jax.errors.JaxRuntimeError as error:
        raise InputError(
            f"process {place.index}: process 0 does not say where it listens ({_one_line(error)})"
        ) from None
    port, token = answer.split(" ")
    host = global_state.coordinator_address.rpartition(":")[0].strip("[]")
    try:
        connection = connect(host, int(port), token, index=place.index, timeout_s=SILENCE_S)
    except OSError as error:
        raise InputError(
            f"process {place.index}: {host}:{port} of process 0 cannot be reached "
            f"({error.strerror or error}); every host must reach it on any port"
        ) from None
    return Peers(place.index, place.count, {0: connection})


def _client() -> Any:
    """JAX's connection with its coordinator."""
    # Public JAX has no way to it; orbax goes the same one.
    from jax._src.distributed import global_state

    assert global_state.client is not None, "start_processes comes first"
    return global_state.client


def _part(peers: Peers) -> None:
    """Wait until all processes are done; until then they watch one another."""
    jax.distributed.shutdown()
    peers.finish()


def _plain_place(environment: Mapping[str, str]) -> Place:
    missing = [name for name in _VARIABLES if not environment.get(name)]
    if missing:
        given = [name for name in _VARIABLES if environment.get(name)]
        raise InputError(
            f"{', '.join(given)}: given without {', '.join(missing)}; several processes need all "
            "three, one process none"
        )
    address = environment["JAX_COORDINATOR_ADDRESS"]
    host, _, port = address.rpartition(":")
    if not host or not port.isdecimal():
        raise InputError(f"JAX_COORDINATOR_ADDRESS: got {address!r}; host:port is needed")
    count, index = (_number(environment, name) for name in _VARIABLES[1:])
    if not 0 <= index < count:
        raise InputError(
            f"JAX_PROCESS_ID: got {index}; a number from 0 to JAX_NUM_PROCESSES - 1 "
            f"({count - 1}) is needed"
        )
    return Place(address, count, index)


def _number(environment: Mapping[str, str], name: str) -> int:
    try:
        return int(environment[name])
    except ValueError:
        raise InputError(f"{name}: got {environment[name]!r}; a whole number is needed") from None


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())


def _exit_status(error: BaseException) -> int:
    return _EXIT_BAD_INPUT if isinstance(error, (InputError, OSError)) else _EXIT_ERROR


def _give_up(place: Place) -> None:
    where = f" at {place.address}" if place.address else ""
    line = (
        f"error: process {place.index}: the {place.count} processes of the run did not meet{where} "
        f"within {MEETING_S} s; were all of them started, and can every host reach that of process "
        "0?"
    )
    os.write(sys.stderr.fileno(), f"{line}\n".encode())
    os._exit(_EXIT_BAD_INPUT)


def _leave(status: int) -> NoReturn:
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)
