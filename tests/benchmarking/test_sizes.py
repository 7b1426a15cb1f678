"""Which cases are measured."""

import pytest

from jaxrank.benchmarking.cases import (
    AttentionShape,
    Case,
    ModelShape,
    ScanShape,
    SsdShape,
    reranker_config,
)
from jaxrank.benchmarking.sizes import SIZES, Choice, plan_cases
from jaxrank.errors import InputError


def test_full_sizes_are_of_as_many_tokens_each() -> None:
    subjects = ("scan", "ssd", "attention", "layer", "train", "score")
    cases = plan_cases(subjects, "full", Choice())
    assert {case.tokens for case in cases} == {64 * 512}
    shapes = {case.shape for case in cases if case.subject == "scan"}
    assert {ScanShape(64, 512, width) for width in (1536, 2048, 3072)} <= shapes
    assert {shape.length for shape in shapes} == {512, 1024, 2048, 4096, 8192}
    assert {case.direction for case in cases if case.subject == "train"} == {"step"}


def test_what_is_asked_for_takes_the_place_of_named_sizes() -> None:
    choice = Choice(lengths=(64,), tokens=256, channels=(128,), directions=("forward",))
    assert plan_cases(["scan"], "full", choice) == [
        Case("scan", ScanShape(4, 64, 128), "forward", "float32")
    ]
    choice = Choice(presets=("opt-125m",), lengths=(8192,), tokens=32768, lora_rank=32)
    (case,) = plan_cases(["train"], "full", choice)
    assert case.shape == ModelShape("opt-125m", 4, 8192, 4, 32)


@pytest.mark.parametrize(
    ("subjects", "sizes", "choice", "message"),
    [
        (["scn"], "full", Choice(), "subject: 'scn' is unknown; known are scan"),
        (["scan"], "big", Choice(), "--sizes: 'big' is unknown; known are toy"),
        (["train"], "full", Choice(presets=("bert-bse",)), "did you mean bert-base?"),
        (["scan"], "full", Choice(lengths=(0,)), "--lengths: got 0"),
    ],
)
def test_what_cannot_be_is_refused_in_one_line(
    subjects: list[str], sizes: str, choice: Choice, message: str
) -> None:
    with pytest.raises(InputError) as caught:
        plan_cases(subjects, sizes, choice)
    assert message in str(caught.value)


def test_texts_beyond_a_models_positions_get_more_of_them() -> None:
    for preset, row in (("bert-base", 0), ("roberta-base", 2), ("pythia-410m", 0)):
        case = Case("train", ModelShape(preset, 4, 8192), "step", "bfloat16")
        backbone = reranker_config(case).backbone
        assert backbone.max_position_embeddings == 8192 + row
        assert backbone.attention_dropout == 0.0


def test_every_published_size_that_is_measured_exists() -> None:
    for name in SIZES:
        cases = plan_cases(["layer", "train", "score"], name, Choice())
        for case in cases:
            assert reranker_config(case).family
    kinds = {type(case.shape) for case in plan_cases(["scan", "ssd", "attention"], "toy", Choice())}
    assert kinds == {ScanShape, SsdShape, AttentionShape}
