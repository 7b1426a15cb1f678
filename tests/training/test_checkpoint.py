"""Checkpoints: what is saved comes back to the bit, what is damaged does not come back at all."""

import json
import resource
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxrank.errors import InputError
from jaxrank.training import manifest
from jaxrank.training.checkpoint import PROGRESS_FILE, Checkpoints, find_checkpoints
from jaxrank.training.loss_scale import init_loss_scale
from jaxrank.training.manifest import MANIFEST_FILE
from jaxrank.training.state_arrays import state_arrays
from jaxrank.training.step import TrainState

OPTIMIZER = optax.adamw(1e-3)


def make_state(*, seed: int = 1, size: int = 64, dtype: Any = jnp.float32) -> TrainState:
    """A state in the middle of a training."""
    random = np.random.default_rng(seed)

    def draw(*shape: int) -> jax.Array:
        return jnp.asarray(random.normal(size=shape), dtype)

    parameters = {"layers": {"kernel": draw(size, size)}, "bias": draw(size)}
    averages = OPTIMIZER.init(parameters)
    averages = jax.tree.map(lambda x: x + jnp.asarray(random.integers(1, 9), x.dtype), averages)
    return TrainState(
        step=jnp.int32(seed),
        parameters=parameters,
        optimizer_state=averages,
        key=jax.random.key(seed),
        frozen={"embedding": jnp.full(3, float(seed))},
        loss_scale=init_loss_scale(1024.0),
        skipped=jnp.int32(2),
    )


def as_bytes(state: TrainState) -> dict[str, bytes]:
    return {name: np.array(array).tobytes() for name, array in state_arrays(state).items()}


@pytest.fixture
def said() -> list[str]:
    return []


@pytest.fixture
def open_checkpoints(tmp_path: Path, said: list[str]) -> Callable[..., Checkpoints]:
    def make(**options: Any) -> Checkpoints:
        return Checkpoints(tmp_path, **({"keep": 2, "say": said.append} | options))

    return make


@pytest.fixture
def saved(tmp_path: Path, open_checkpoints: Callable[..., Checkpoints]) -> Path:
    """Checkpoints of steps 4 and 8."""
    with open_checkpoints() as checkpoints:
        for step in (4, 8):
            checkpoints.save(step, make_state(seed=step), {"step": step, "nan": float("nan")})
    return tmp_path


def test_a_state_comes_back_to_the_bit_though_its_memory_was_reused(
    open_checkpoints: Callable[..., Checkpoints], tmp_path: Path
):
    state = make_state(size=700)
    before = as_bytes(state)
    reuse = jax.jit(lambda x: x * 2, donate_argnums=0)
    with open_checkpoints() as checkpoints:
        checkpoints.save(3, state, {"batches": {"next_index": 3}, "mean": 0.1})
        jax.block_until_ready(jax.tree.map(reuse, state.parameters))
    with open_checkpoints() as checkpoints:
        restored = checkpoints.restore(make_state(seed=9, size=700))
    assert restored is not None
    assert as_bytes(restored.state) == before
    assert restored.progress == {"batches": {"next_index": 3}, "mean": 0.1}
    assert restored.folder == tmp_path / "step-000003"
    assert jax.tree.structure(restored.state) == jax.tree.structure(state)
    assert jnp.issubdtype(restored.state.key.dtype, jax.dtypes.prng_key)
    # What is not trained is not saved: it comes from where the run started.
    assert restored.state.frozen["embedding"][0] == 9.0


def test_the_newest_stay_and_those_of_milestones(
    open_checkpoints: Callable[..., Checkpoints], tmp_path: Path
):
    with open_checkpoints(keep=2, keep_steps=(2, 6)) as checkpoints:
        for step in range(1, 8):
            checkpoints.save(step, make_state(), {})
    assert find_checkpoints(tmp_path) == [7, 6, 2]
    assert {path.name for path in tmp_path.iterdir()} == {
        "step-000002", "step-000006", "step-000007"
    }  # fmt: skip


def test_without_checkpoints_there_is_nothing_to_restore(
    open_checkpoints: Callable[..., Checkpoints], tmp_path: Path
):
    # A kill leaves one that was being written; it does not count.
    (tmp_path / ".step-000001.part").mkdir()
    assert open_checkpoints().restore(make_state()) is None


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


DAMAGES: dict[str, Callable[[Path], None]] = {"flip": flip, "cut": cut, "remove": Path.unlink}


@pytest.mark.parametrize("damage", DAMAGES)
def test_no_damaged_file_is_ever_restored(
    saved: Path,
    open_checkpoints: Callable[..., Checkpoints],
    damage: str,
    said: list[str],
    tmp_path_factory: pytest.TempPathFactory,
):
    newest = saved / "step-000008"
    files = sorted(path for path in newest.rglob("*") if path.is_file())
    assert {MANIFEST_FILE, PROGRESS_FILE} < {path.name for path in files}
    copy = tmp_path_factory.mktemp("copy") / "whole"
    shutil.copytree(newest, copy)
    with open_checkpoints() as checkpoints:
        for path in files:
            DAMAGES[damage](path)
            said.clear()
            checkpoints._refused.clear()
            restored = checkpoints.restore(make_state())
            assert restored is not None
            assert restored.folder.name == "step-000004"
            assert as_bytes(restored.state) == as_bytes(make_state(seed=4))
            assert len(said) == 1
            assert str(newest) in said[0]
            assert path.name in said[0]
            path.write_bytes((copy / path.relative_to(newest)).read_bytes())
        checkpoints._refused.clear()
        restored = checkpoints.restore(make_state())
        assert restored is not None
        assert restored.folder == newest


def test_a_file_too_many_is_damage(saved: Path, open_checkpoints: Any, said: list[str]):
    (saved / "step-000008" / "state" / "more").write_text("x")
    assert open_checkpoints().restore(make_state()).folder.name == "step-000004"
    assert "state/more was not there when it was saved" in said[0]


def test_a_folder_under_another_name_is_not_of_that_step(
    saved: Path, open_checkpoints: Any, said: list[str]
):
    (saved / "step-000008").rename(saved / "step-000009")
    assert open_checkpoints().restore(make_state()).folder.name == "step-000004"
    assert "step-000009: not used, since it is of step 8" in said[0]


@pytest.mark.parametrize(
    ("state", "reason"),
    [
        (
            make_state(dtype=jnp.bfloat16),
            r"optimizer_state/0/mu/bias is float32\[64\] there and bf",
        ),
        (make_state(size=8), r"optimizer_state/0/mu/bias is float32\[64\] there and float32\[8\]"),
        (make_state()._replace(loss_scale=None), r"loss_scale/\w+ is .* there and missing in"),
    ],
)
def test_a_state_of_another_form_is_refused(
    saved: Path, open_checkpoints: Any, state: TrainState, reason: str
):
    with pytest.raises(InputError, match=reason.replace("bf", "bfloat16")):
        open_checkpoints().restore(state)
    # Nothing of the state was given up for it.
    assert not any(leaf.is_deleted() for leaf in jax.tree.leaves(state.parameters))


def test_where_none_can_be_used_one_line_says_why_and_what_to_do(
    saved: Path, open_checkpoints: Any
):
    (saved / "step-000008" / MANIFEST_FILE).unlink()
    flip(saved / "step-000004" / PROGRESS_FILE)
    with pytest.raises(InputError) as error:
        open_checkpoints().restore(make_state())
    message = str(error.value)
    assert (
        "step-000008: manifest.json is missing; step-000004: progress.json was changed" in message
    )
    assert message.endswith("--training.overwrite true starts again from step 0")
    assert "\n" not in message


def test_a_damaged_checkpoint_makes_no_whole_one_go(
    saved: Path, open_checkpoints: Callable[..., Checkpoints]
):
    flip(saved / "step-000008" / PROGRESS_FILE)
    with open_checkpoints() as checkpoints:
        assert checkpoints.restore(make_state()) is not None
        checkpoints.save(6, make_state(seed=6), {})
        checkpoints.wait()
        assert find_checkpoints(saved) == [6, 4]
        checkpoints.save(8, make_state(seed=8), {})
    assert find_checkpoints(saved) == [8, 6]


@pytest.fixture
def small_disk() -> Iterator[Callable[[int], None]]:
    """Lets no file grow beyond some bytes, which ends a write as a full disk does."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    yield lambda size: resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_full_disk_is_an_error_that_names_the_checkpoint_and_leaves_the_others(
    saved: Path,
    open_checkpoints: Callable[..., Checkpoints],
    small_disk: Callable[[int], None],
    caplog: pytest.LogCaptureFixture,
):
    with pytest.raises(OSError, match="File too large") as error, open_checkpoints() as checkpoints:
        small_disk(4000)
        checkpoints.save(12, make_state(), {})
        checkpoints.wait()
    assert error.value.filename == str(saved / "step-000012")
    assert {path.name for path in saved.iterdir()} == {"step-000004", "step-000008"}
    # orbax logs a page of tracebacks, which belong to nobody.
    assert not caplog.records
    small_disk(resource.RLIM_INFINITY)
    assert open_checkpoints().restore(make_state()).folder.name == "step-000008"


def test_a_full_disk_is_seen_without_waiting(
    open_checkpoints: Callable[..., Checkpoints], monkeypatch: pytest.MonkeyPatch
):
    def write(*arguments: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("jaxrank.training.checkpoint.write_manifest", write)
    checkpoints = open_checkpoints()
    checkpoints.save(1, make_state(), {})
    pending = checkpoints._pending
    assert pending is not None
    pending.exception(timeout=30)
    with pytest.raises(OSError, match="No space left") as error:
        checkpoints.check()
    assert str(error.value.filename).endswith("step-000001")
    checkpoints.check()


def test_a_bit_that_flips_in_a_manifest_is_found(tmp_path: Path):
    (tmp_path / "file").write_text("content")
    manifest.write_manifest(tmp_path, {"step": 4})
    assert manifest.verify_manifest(tmp_path) == {"step": 4}
    path = tmp_path / MANIFEST_FILE
    whole = path.read_bytes()
    for place in range(len(whole)):
        damaged = bytearray(whole)
        damaged[place] ^= 1 << place % 8
        path.write_bytes(damaged)
        with pytest.raises(InputError):
            manifest.verify_manifest(tmp_path)
    assert json.loads(whole)["about"] == {"step": 4}
