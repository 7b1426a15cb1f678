"""Counted work against numbers counted by hand, and the floors that follow."""

import pytest

from jaxrank.benchmarking.cases import AttentionShape, Case, ScanShape, SsdShape
from jaxrank.benchmarking.floors import (
    DEVICES,
    Work,
    count_attention,
    count_layer,
    count_operation,
    count_scan,
    count_ssd,
    find_device,
    floor_seconds,
    floor_terms,
)
from jaxrank.benchmarking.networks import ModelShape
from jaxrank.models.bert import PRESETS as BERTS
from jaxrank.models.mamba import PRESETS as MAMBAS

H200 = DEVICES[0]
TOKENS = 64 * 512


@pytest.mark.parametrize(
    ("channels", "forward_ms", "backward_ms"),
    [(1536, 0.241, 0.638), (2048, 0.321, 0.851), (3072, 0.481, 1.276)],
)
def test_the_scan_is_bound_by_exponentials_forward_and_by_issue_backward(
    channels: int, forward_ms: float, backward_ms: float
) -> None:
    # 40 clocks of special functions and 106 of issue for 32 channels of 16 states of a token.
    steps = TOKENS * channels / 32 / (132 * 1.98e9)
    for direction, expected, clocks in (
        ("forward", forward_ms, 40),
        ("backward", backward_ms, 106),
    ):
        case = Case("scan", ScanShape(64, 512, channels), direction, "bfloat16")
        floor = floor_seconds(count_operation(case), H200, "bfloat16")
        assert floor == pytest.approx(clocks * steps)
        assert 1e3 * floor == pytest.approx(expected, abs=1e-3)


def test_the_scan_reads_and_writes_each_array_once() -> None:
    shape = ScanShape(batch=2, length=3, channels=4, states=5)
    forward = count_scan(shape, 2, is_backward=False)
    assert forward.memory == 4 * (6 * 4) * 2 + 2 * (6 * 5) * 4
    assert forward.exp == 6 * 4 * (5 + 4)
    backward = count_scan(shape, 2, is_backward=True)
    assert backward.memory == 7 * (6 * 4) * 2 + 4 * (6 * 5) * 4
    assert backward.exp == 6 * 4 * (5 + 6)


def test_ssd_adds_an_eighth_to_the_products_of_its_layer() -> None:
    # mamba2-370m: 1,024 wide, 32 heads of 64, 128 states.
    work = count_ssd(SsdShape(64, 512, heads=32), 2, is_backward=False)
    a_token = 2 * 128 * 128 + 32 * (2 * 128 * 64 + 2 * 2 * 64 * 128)
    assert work.matmul == TOKENS * a_token
    products = 2 * (1024 * (2 * 2048 + 2 * 128 + 32) + 2048 * 1024)
    assert a_token / products == pytest.approx(0.12, abs=0.005)


def test_causal_attention_is_half_the_work_and_backward_five_halves() -> None:
    shape = AttentionShape(batch=2, length=8, heads=3, head_size=4)
    causal = AttentionShape(batch=2, length=8, heads=3, head_size=4, is_causal=True)
    forward = count_attention(shape, 2, is_backward=False)
    assert forward.matmul == 2 * 2 * (2 * 3 * 8 * 8 * 4)
    assert forward.memory == 4 * (2 * 8 * 3 * 4) * 2
    assert count_attention(causal, 2, is_backward=False).matmul == forward.matmul / 2
    assert count_attention(shape, 2, is_backward=True).matmul == 2.5 * forward.matmul


def test_parts_add_up_and_in_a_part_the_busiest_unit_counts() -> None:
    parts = [
        Work("a", matmul=989e12, memory=2.4e12),
        Work("b", memory=4.8e12, exp=H200.exp / 2),
    ]
    assert floor_seconds(parts, H200, "bfloat16") == pytest.approx(1.0 + 1.0)
    terms = floor_terms(parts, H200, "bfloat16")
    assert terms == pytest.approx({"matmul": 1.0, "memory": 1.5, "exp": 0.5})
    # TF32 products take twice as long.
    assert floor_seconds(parts[:1], H200, "float32") == pytest.approx(2.0)


def test_a_layer_is_its_products_its_operation_and_its_norms() -> None:
    case = Case("layer", ModelShape("mamba-370m", 64, 512), "both", "bfloat16")
    products = 1024 * 4096 + 2048 * (64 + 32) + 64 * 2048 + 2048 * 1024
    parts = count_layer(case, MAMBAS["mamba-370m"], products=products, is_causal=False)
    names = ["products", "scan forward", "norms and sums"]
    assert [part.name for part in parts] == [
        *names, "products", "scan backward", "norms and sums",
    ]  # fmt: skip
    assert parts[0].matmul == 2 * TOKENS * products
    assert parts[3].matmul == 4 * TOKENS * products
    assert parts[1] == count_scan(ScanShape(64, 512, 2048), 2, is_backward=False)
    bert = Case("layer", ModelShape("bert-base", 64, 512), "forward", "bfloat16")
    parts = count_layer(bert, BERTS["bert-base"], products=1, is_causal=False)
    expected = count_attention(AttentionShape(64, 512, 12), 2, is_backward=False)
    assert parts[1] == expected


def test_a_device_without_known_figures_has_no_floor() -> None:
    assert find_device("NVIDIA H200") is H200
    assert find_device("NVIDIA A100-SXM4-80GB") is DEVICES[2]
    for unknown in ("cpu", "NVIDIA H100 PCIe", "NVIDIA GeForce RTX 4090"):
        assert find_device(unknown) is None


def test_issue_clocks_count_where_they_were_counted() -> None:
    work = [Work("a", issue=1e9)]
    assert floor_seconds(work, H200, "bfloat16") > 0
    assert floor_seconds(work, DEVICES[2], "bfloat16") == 0  # an A100
