import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrank.models.states import StateArray
from jaxrank.ranking.document_states.formats import (
    StateDType,
    from_stored,
    stored_arrays,
    stored_bytes,
    to_stored,
)
from tests.ranking.document_states.small_states import BUDGET, IDENTITY, length_of, record_of

SPEC = (StateArray("recurrence", (3, 40, 16)),)
DTYPES: tuple[StateDType, ...] = ("float32", "bfloat16", "int8")


def there_and_back(array: np.ndarray, dtype: StateDType, specs=SPEC) -> np.ndarray:
    stored = to_stored({"recurrence": array}, specs, dtype)
    back = jax.jit(lambda arrays: from_stored(arrays, specs, dtype))(stored)
    return np.asarray(back["recurrence"])


@pytest.fixture
def numbers() -> np.ndarray:
    """Channels of sizes from 1e-30 to 1e30."""
    random = np.random.default_rng(0)
    sizes = 10.0 ** random.uniform(-30, 30, (3, 40, 1))
    return (random.normal(size=(3, 40, 16)) * sizes).astype(np.float32)


def test_float32_comes_back_to_the_bit(numbers: np.ndarray):
    np.testing.assert_array_equal(there_and_back(numbers, "float32"), numbers)


def test_bfloat16_is_the_nearest(numbers: np.ndarray):
    back = there_and_back(numbers, "bfloat16")
    assert back.dtype == jnp.bfloat16
    error = np.abs(back.astype(np.float32) - numbers) / np.abs(numbers)
    assert 2**-9 < error.max() <= 2**-8


def test_int8_is_within_half_a_scale_of_each_channel(numbers: np.ndarray):
    back = there_and_back(numbers, "int8")
    assert back.dtype == np.float32
    # The scale is a 127th of the largest number, at most a 128th of itself above that.
    scale = np.abs(numbers).max(axis=-1, keepdims=True) / 127 * (1 + 2**-7)
    error = np.abs(back - numbers) / scale
    assert 0.4 < error.max() <= 0.5 + 1e-5


def test_scales_are_rounded_up_so_that_nothing_is_clipped(numbers: np.ndarray):
    stored = to_stored({"recurrence": numbers}, SPEC, "int8")
    scale = stored["recurrence.scale"].astype(np.float32)
    exact = np.abs(numbers).max(axis=-1) / np.float32(127)
    assert (scale >= exact).all()
    assert (scale <= exact * (1 + 2**-7)).all()
    largest = np.abs(stored["recurrence"].astype(np.int32)).max(axis=-1)
    assert largest.max() == 127
    assert largest.min() >= 126


def test_a_scale_that_bfloat16_holds_is_kept_as_it_is():
    numbers = np.tile(np.linspace(-127, 127, 16, dtype=np.float32), (3, 40, 1))
    assert (to_stored({"recurrence": numbers}, SPEC, "int8")["recurrence.scale"] == 1).all()


def test_channels_of_zeros_are_exact(numbers: np.ndarray):
    numbers[1, 3:9] = 0
    numbers[2, 0] = 1e-37  # its scale would be subnormal, which devices take to be zero
    stored = to_stored({"recurrence": numbers}, SPEC, "int8")
    back = there_and_back(numbers, "int8")
    for channels in ((1, slice(3, 9)), (2, 0)):
        assert not stored["recurrence.scale"][channels].astype(np.float32).any()
        assert not stored["recurrence"][channels].any()
        assert not back[channels].any()
    assert back[0].any()


def test_what_is_not_quantised_is_kept_in_bfloat16_among_eight_bits(numbers: np.ndarray):
    specs = (StateArray("recurrence", (3, 40, 16), quantised=False),)
    stored = to_stored({"recurrence": numbers}, specs, "int8")
    assert list(stored) == ["recurrence"]
    np.testing.assert_array_equal(
        there_and_back(numbers, "int8", specs), there_and_back(numbers, "bfloat16")
    )


def test_leading_axes_do_not_matter(numbers: np.ndarray):
    batch = np.stack([numbers, 2 * numbers], axis=1)
    for dtype in DTYPES:
        stored = to_stored({"recurrence": batch}, SPEC, dtype)
        for row, one in enumerate((numbers, 2 * numbers)):
            for name, array in to_stored({"recurrence": one}, SPEC, dtype).items():
                np.testing.assert_array_equal(stored[name][:, row], array)


def test_states_of_half_precision_are_taken_too(numbers: np.ndarray):
    half = numbers.astype(jnp.bfloat16)
    for dtype in DTYPES:
        np.testing.assert_array_equal(
            there_and_back(half, dtype), there_and_back(half.astype(np.float32), dtype)
        )


@pytest.mark.parametrize("dtype", DTYPES)
def test_sizes_are_those_of_the_arrays(dtype: StateDType):
    for document_id in ("a", "bc", "def"):
        record = record_of(document_id, dtype)
        assert record.nbytes == stored_bytes(IDENTITY.arrays, dtype, length_of(document_id))
        for array in stored_arrays(IDENTITY.arrays, dtype):
            found = record.arrays[array.name]
            assert (found.shape, found.dtype) == (array.shape_at(record.length), array.dtype)


def test_a_state_of_mamba_130m_takes_as_much_as_is_said_of_it():
    specs = (
        StateArray("convolution", (24, 3, 1536), quantised=False),
        StateArray("recurrence", (24, 1536, 16)),
    )
    sizes = [stored_bytes(specs, dtype, BUDGET) for dtype in DTYPES]
    assert sizes == [2_801_664, 1_400_832, 884_736]
