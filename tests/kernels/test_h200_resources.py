"""The scan's kernels as compiled for the H200: what interpretation cannot see.

Interpretation runs one thread after the other and has no registers, so neither a missing barrier
nor a spilled register shows there. The counts below say what each barrier and store is for: one
that goes missing, or one more that somebody adds, has to be answered for here.
"""

import dataclasses

import jax.numpy as jnp
import pytest

from scripts.h200 import KernelResources, kernel_resources
from scripts.h200.cases import scan_case

STATES = 16
CHANNELS_PER_THREAD = 2  # there are blocks enough for it


@pytest.fixture(scope="module")
def kernels() -> dict[str, KernelResources]:
    """Of mamba-370m's scan at 64 x 512 tokens in bfloat16, with gate and resets."""
    found = kernel_resources(*scan_case(2048, states=STATES))
    return {kernel.name: kernel for kernel in found}


@pytest.fixture(scope="module")
def kernels_of_segments() -> list[KernelResources]:
    """Of one sequence that is cut: a channel a thread, without gate and resets."""
    return kernel_resources(
        *scan_case(128, batch=1, length=256, states=8, has_gate=False, has_resets=False)
    )


def test_scan_with_gradients_is_two_kernels(kernels):
    assert set(kernels) == {"selective_scan_forward", "selective_scan_backward"}


def test_scan_of_segments_carries_the_state_and_its_cotangent_first(kernels_of_segments):
    assert [kernel.name for kernel in kernels_of_segments] == [
        "selective_scan_carry",
        "selective_scan_forward",
        "selective_scan_carry",
        "selective_scan_backward",
    ]


def test_no_kernel_adds_to_memory_in_an_order_of_its_own(kernels, kernels_of_segments):
    for kernel in (*kernels.values(), *kernels_of_segments):
        assert kernel.atomics == 0, kernel.name


def test_kernels_of_segments_have_the_barriers_and_stores_of_their_variant(kernels_of_segments):
    states = 8
    # The barriers are those named below; a thread stores for one channel.
    expected = {
        "selective_scan_carry": (2, states + 1),  # the end of each state, the span
        "selective_scan_forward": (2, 1 + 2 * states),
        "selective_scan_backward": (6, 2 + 1 + 2 + 2),  # no gate, so no cotangent of one
    }
    for kernel in kernels_of_segments:
        assert (kernel.barriers, kernel.stores) == expected[kernel.name], kernel


def test_forward_keeps_to_its_budget(kernels):
    forward = kernels["selective_scan_forward"]
    assert forward.spill_bytes == 0
    assert forward.shared_bytes <= 48 * 1024
    # Two channels a thread, so four blocks of 128 threads hold as many as eight would of one. Four
    # fit with 114 registers a thread, and still do with 128.
    assert forward.registers <= 128
    assert forward.blocks_per_multiprocessor >= 4


def test_backward_keeps_to_its_budget(kernels):
    backward = kernels["selective_scan_backward"]
    assert backward.spill_bytes == 0
    assert backward.registers <= 255
    assert backward.blocks_per_multiprocessor >= 2


def test_forward_has_each_barrier_that_it_needs(kernels):
    barriers = {
        "the barriers that copies arrive at are set up": 1,
        "a slot of shared memory is read before a copy fills it again": 1,
    }
    assert kernels["selective_scan_forward"].barriers == sum(barriers.values())


def test_backward_has_each_barrier_that_it_needs(kernels):
    barriers = {
        "the barriers that copies arrive at are set up": 1,
        "terms of dB and dC are written before they are summed": 1,
        "terms are read before the next ones are written": 1,
        "cotangents are written before they are copied out": 1,
        "cotangents are copied out before their slot is filled again": 1,
        "the last copies are over before the block ends": 1,
    }
    assert kernels["selective_scan_backward"].barriers == sum(barriers.values())


def test_forward_stores_each_output_once(kernels):
    stores = {"y": 1, "a kept state": STATES, "the final state": STATES}
    assert kernels["selective_scan_forward"].stores == sum(stores.values())


def test_backward_stores_each_cotangent_once(kernels):
    stores = {
        "u, delta and z, in bulk": 3,
        "partial sums of B and C, in bulk": 1,
        "A and the initial state, in bulk": 2,
        "D and delta_bias, of each of a thread's channels": 2 * CHANNELS_PER_THREAD,
    }
    assert kernels["selective_scan_backward"].stores == sum(stores.values())


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float32])
@pytest.mark.parametrize(
    "options",
    [
        {"channels": 1536},
        {"channels": 3072, "has_gate": False},
        {"channels": 3072, "has_resets": False},
        {"channels": 2048, "states": 32},
        {"channels": 2048, "batch": 1, "length": 8192},  # cut into segments
    ],
)
def test_no_variant_spills(options, dtype):
    for kernel in kernel_resources(*scan_case(**options, dtype=dtype)):
        assert kernel.spill_bytes == 0, dataclasses.asdict(kernel)
