"""XLA's flags for the same bits in every run."""

from pathlib import Path

import jax
import pytest

from jaxrank.errors import InputError
from jaxrank.training import determinism
from jaxrank.training.determinism import AUTOTUNING_FOLDER, make_deterministic


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a GPU that nothing has used yet."""
    monkeypatch.setattr(determinism, "_is_on_cpu", lambda: False)
    monkeypatch.setattr(determinism, "_is_device_in_use", lambda: False)


def flags_of(folder: Path, **options: int) -> tuple[list[str], str | None]:
    environment = {"XLA_FLAGS": "--xla_dump_to=there"}
    note = make_deterministic(folder, environment=environment, **options)
    return environment["XLA_FLAGS"].split(), note


@pytest.mark.usefixtures("gpu")
def test_choices_of_kernels_are_kept_and_read_again(tmp_path: Path):
    kept = tmp_path / AUTOTUNING_FOLDER / "process-00003.txt"
    flags, note = flags_of(tmp_path, process=3)
    assert note is None
    assert flags == [
        "--xla_dump_to=there",
        "--xla_gpu_deterministic_ops=true",
        f"--xla_gpu_dump_autotune_results_to={kept}",
    ]
    kept.write_text("version: 3\nresults { gemm { } }\n")
    flags, note = flags_of(tmp_path, process=3)
    copy = kept.with_name("at-start-00003.txt")
    assert note is None
    assert flags[-1] == f"--xla_gpu_load_autotune_results_from={copy}"
    assert copy.read_text() == kept.read_text()


@pytest.mark.usefixtures("gpu")
def test_choices_that_a_kill_has_cut_are_not_read(tmp_path: Path):
    kept = tmp_path / AUTOTUNING_FOLDER / "process-00000.txt"
    flags_of(tmp_path)
    kept.write_text("version: 3\nresults { gemm {")
    flags, note = flags_of(tmp_path)
    assert "so bits may differ" in str(note)
    assert not [flag for flag in flags if "load_autotune" in flag]
    kept.write_text("version: 3\nresults { gemm { } }\n")
    flags_of(tmp_path)
    kept.write_text("version: 3\nresults { gemm {")
    flags, note = flags_of(tmp_path)
    assert "the start before are used" in str(note)
    assert [flag for flag in flags if "load_autotune" in flag]


def test_a_cpu_needs_nothing(tmp_path: Path):
    environment: dict[str, str] = {}
    note = make_deterministic(tmp_path / "run", environment=environment)
    assert "changes nothing on a CPU" in str(note)
    assert environment == {}
    assert not (tmp_path / "run").exists()


def test_flags_that_come_too_late_or_contradict_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(determinism, "_is_on_cpu", lambda: False)
    jax.devices()
    with pytest.raises(InputError, match="a device is in use already"):
        make_deterministic(tmp_path, environment={})
    monkeypatch.setattr(determinism, "_is_device_in_use", lambda: False)
    contradiction = {"XLA_FLAGS": "--xla_gpu_deterministic_ops=false"}
    with pytest.raises(InputError, match="XLA_FLAGS has --xla_gpu_deterministic_ops=false"):
        make_deterministic(tmp_path, environment=contradiction)
