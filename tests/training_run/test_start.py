"""What a run says before its first step."""

import jax
import pytest

from jaxrank.errors import InputError
from jaxrank.models.families import FAMILIES
from jaxrank.models.module import RerankerConfig
from jaxrank.training_run.start import attention_notes


def config(family: str) -> RerankerConfig:
    return RerankerConfig(family, next(iter(FAMILIES[family].presets.values())))


@pytest.mark.parametrize(("family", "option"), [("bert", "attention_dropout"), ("t5", "dropout")])
def test_on_a_gpu_dropout_of_probabilities_is_told_with_the_option_that_frees_cudnn(
    family: str, option: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    (note,) = attention_notes(config(family), "auto")
    assert "a dropout of 0.1" in note
    assert f"model.overrides.{option} 0, which departs from the published recipe" in note


@pytest.mark.parametrize(
    ("family", "implementation", "backend"),
    [
        ("bert", "auto", "cpu"),
        ("bert", "xla", "gpu"),
        ("opt", "auto", "gpu"),
        ("mamba", "auto", "gpu"),
    ],
)
def test_nothing_is_told_where_dropout_keeps_nobody_from_cudnn(
    family: str, implementation: str, backend: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(jax, "default_backend", lambda: backend)
    assert attention_notes(config(family), implementation) == ()


def test_cudnn_with_dropout_is_refused_before_the_first_step():
    with pytest.raises(InputError, match=r"cudnn came, .* 0\.1; auto is needed, or"):
        attention_notes(config("bert"), "cudnn")
