"""One suite for all families: what PyTorch computes is the specification.

A family's test file subclasses FamilySuite and says which small checkpoints to compare and how
transformers writes down the published sizes. Everything else is inherited: hidden states, scores
and gradients of small and of published sizes, padding, packing, precision, weights there and back,
what PyTorch reads of a saved folder, and that the model learns.
"""

import re
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
import transformers
from flax import nnx

import jaxrank
from ckpt_convert.architectures import ARCHITECTURES
from ckpt_convert.parity import read_pairs
from ckpt_convert.rules import canonical_name, export_weights
from ckpt_convert.save import save
from ckpt_convert.torch_oracle import TorchReranker, quiet_transformers
from ckpt_convert.weight_files import open_weights
from jaxrank.models.families import get_family
from jaxrank.models.module import (
    RerankerConfig,
    build_module,
    init_module,
    parameter_shapes,
    parameters,
)
from jaxrank.text.templates import TextConfig
from jaxrank.text.tokenize import PairTokenizer, load_tokenizer
from tests.families.comparison import (
    BFLOAT16_RATIO,
    FULL_RELATIVE,
    LENGTHS,
    SMALL_RELATIVE,
    Checkpoint,
    Compared,
    check_forward,
    check_gradients,
    compare,
    dropout_rates,
    relative_difference,
    relative_error,
    scores_by_key,
    to_jax,
    without_dropout,
)
from tests.families.learning import learn_four_groups
from tests.families.packed import PackedSuite
from tests.tokenizer_builders import tokenizer_folder


class FamilySuite(PackedSuite):
    """Inherit, and fill in what stands here."""

    family: ClassVar[str]
    checkpoints: ClassVar[dict[str, Checkpoint]]
    """Small ones, by name: every source class, every head and every switch of the family."""

    presets: ClassVar[dict[str, tuple[str, dict[str, Any]]]]
    """Published size -> transformers' backbone class and the configuration of that size."""

    full_size: ClassVar[dict[str, Checkpoint]]
    """Published size -> the checkpoint that is compared; those in `slow` only with --all."""

    slow: ClassVar[tuple[str, ...]] = ()
    forward_only: ClassVar[tuple[str, ...]] = ()
    """Sizes whose gradients, in both frameworks, need more memory than a test may take."""

    full_lengths: ClassVar[tuple[int, ...]] = (6, 4)
    tokenizer: ClassVar[str]
    """A kind that tests.tokenizer_builders knows."""

    @pytest.fixture(scope="class")
    @classmethod
    def get_compared(cls, tmp_path_factory: pytest.TempPathFactory) -> Any:
        folder = tmp_path_factory.mktemp(cls.family)
        return cache(
            lambda name: compare(cls.checkpoints[name], folder / name, LENGTHS, spread=0.05)
        )

    @pytest.fixture
    def compared(self, get_compared: Any, checkpoint_name: str) -> Compared:
        return get_compared(checkpoint_name)

    def test_hidden_states_and_scores_match(self, compared: Compared):
        check_forward(compared, SMALL_RELATIVE)

    @pytest.mark.parametrize("options", [{}, {"remat": "full"}], ids=["", "remat"])
    def test_gradients_of_every_parameter_match(self, compared: Compared, options: dict):
        check_gradients(compared, **options)

    def test_a_score_does_not_depend_on_padding_or_the_batch(self, compared: Compared):
        graph, state = nnx.split(compared.module)
        score = jax.jit(lambda batch: nnx.merge(graph, state)(**batch))
        together = np.asarray(score(to_jax(compared.batch)))
        for row in range(len(LENGTHS)):
            alone = {n: a[row : row + 1, : LENGTHS[row]] for n, a in compared.batch.items()}
            np.testing.assert_allclose(score(to_jax(alone))[0], together[row], atol=1e-5)
        padding = ~compared.batch["mask"]
        other = dict(compared.batch)
        other["input_ids"] = np.where(padding, 49, compared.batch["input_ids"])
        wider = {n: np.pad(a, [(0, 0), (0, 5)]) for n, a in other.items()}
        np.testing.assert_allclose(score(to_jax(wider)), together, atol=1e-5)
        assert np.ptp(together) > 1e-3, "equal scores show nothing"

    def test_a_text_without_any_token_has_a_finite_score(self, compared: Compared):
        empty = dict(compared.batch, mask=np.zeros_like(compared.batch["mask"]))
        assert np.all(np.isfinite(compared.module(**to_jax(empty))))

    def test_bfloat16_rounds_no_more_than_pytorch(self, compared: Compared):
        mask = compared.batch["mask"]
        ours = build_module(compared.config, compared.weights, dtype=jnp.bfloat16)
        hidden = jax.jit(lambda batch: ours.encode(**batch))(to_jax(compared.batch))
        assert hidden.dtype == jnp.bfloat16
        theirs = TorchReranker.from_folder(compared.folder, compared.config, compared.weights)
        theirs.model.to(torch.bfloat16)
        with torch.no_grad():
            narrow = theirs(compared.batch)[0][-1].float().numpy()
        exact = compared.states[-1]
        last = compared.module.encode(**to_jax(compared.batch))
        if last.shape == exact.shape and relative_difference(last, exact, mask) < 1e-3:
            error = relative_error(hidden, exact, mask)
            assert error <= BFLOAT16_RATIO * relative_error(narrow, exact, mask)
        else:  # Transformers' last state is not what the head sees.
            scores = np.asarray(jax.jit(lambda batch: ours(**batch))(to_jax(compared.batch)))
            with torch.no_grad():
                rounded = theirs(compared.batch)[1].float().numpy()
            error = np.linalg.norm(scores - compared.scores)
            allowed = np.linalg.norm(rounded - compared.scores)
            assert error <= BFLOAT16_RATIO * allowed

    def test_a_key_says_what_is_dropped_and_without_rates_nothing_is(self, compared: Compared):
        score = jax.jit(compared.module.__call__)
        batch = to_jax(compared.batch)
        one = jax.random.key(1)
        np.testing.assert_array_equal(score(**batch, key=one), score(**batch, key=one))
        plain = score(**batch)
        still = without_dropout(compared.config)
        module = build_module(still, compared.weights)
        np.testing.assert_allclose(module(**batch, key=one), plain, atol=1e-5)

    def test_every_rate_drops_by_itself(self, compared: Compared):
        """Each of the backbone's with all others 0, then the head's, where PyTorch's has one."""
        still = without_dropout(compared.config)
        for name in dropout_rates(still):
            backbone = replace(still.backbone, **{name: 0.5})
            one, two = scores_by_key(compared, replace(still, backbone=backbone))
            assert np.all(one != two), name
        one, two = scores_by_key(compared, replace(still, head_dropout=0.5))
        is_plain = ARCHITECTURES[self.family].classifier_dropout is None
        if still.head == "classification" and is_plain:
            np.testing.assert_array_equal(one, two)
        else:
            assert np.all(one != two)

    def test_weights_survive_the_round_trip_bit_by_bit(self, compared: Compared):
        table = ARCHITECTURES[self.family].tables[compared.config.head]
        tensors = export_weights(table, compared.weights)
        weights = open_weights(compared.folder)
        stored = {canonical_name(table, name): weights.read(name) for name in weights.shapes}
        expected = {name: tensor for name, tensor in stored.items() if name in tensors}
        assert expected.keys() >= tensors.keys() - {"score.weight", "score.bias"}
        for name, tensor in expected.items():
            np.testing.assert_array_equal(tensors[name], tensor, err_msg=name)
        lost = stored.keys() - tensors.keys()
        known = [*(pattern for pattern, _ in table.ignored), *(re.escape(a) for a, _ in table.tied)]
        assert [n for n in lost if not any(re.fullmatch(pattern, n) for pattern in known)] == []

    def test_presets_have_pytorchs_parameter_count(self):
        family = get_family(self.family)
        tiny = f"{self.family.replace('_', '-')}-tiny"
        assert family.presets.keys() == {*self.presets, tiny}
        for preset, (source, config) in self.presets.items():
            model_class = getattr(transformers, source)
            with torch.device("meta"), quiet_transformers():
                model = model_class(model_class.config_class(**config))
            theirs = {name: parameter.numel() for name, parameter in model.named_parameters()}
            shapes = parameter_shapes(RerankerConfig(self.family, family.presets[preset]))
            ours = sum(
                int(np.prod(spec.shape)) for n, spec in shapes.items() if n.startswith("backbone.")
            )
            unused = [n for n in theirs if re.search(r"(^|\.)pooler\.", n)]
            assert ours == sum(theirs.values()) - sum(theirs[n] for n in unused), preset

    @pytest.fixture(scope="class", params=["linear", "classification"])
    @classmethod
    def saved(cls, request: pytest.FixtureRequest, tmp_path_factory: Any) -> Path:
        """A folder of ours with the tiny preset, from a random start, and a real tokenizer."""
        family = get_family(cls.family)
        if request.param == "classification" and family.classification_head is None:
            pytest.skip(f"transformers has no classification class for {cls.family}")
        config = cls.tiny(request.param)
        arrays = {
            path: np.asarray(a) for path, a in parameters(init_module(config, seed=0)).items()
        }
        for path in arrays:
            if path.startswith("head."):
                arrays[path] = arrays[path] * 10 + 0.01
        folder = tmp_path_factory.mktemp(cls.family) / "model"
        return save(
            folder,
            config=config,
            parameters=arrays,
            tokenizer=load_tokenizer(cls.tokenizer_folder()),
            text=TextConfig("pair", max_length=48),
        )

    @classmethod
    def tokenizer_folder(cls) -> Path:
        return tokenizer_folder(cls.tokenizer)

    @classmethod
    def tiny(cls, head: Any = "linear") -> RerankerConfig:
        """The smallest preset, with rows for the tokenizer."""
        preset = get_family(cls.family).presets[f"{cls.family.replace('_', '-')}-tiny"]
        tokenizer = load_tokenizer(cls.tokenizer_folder())
        rows = max(PairTokenizer(tokenizer, TextConfig()).vocabulary_size, preset.vocab_size)
        return RerankerConfig(cls.family, replace(preset, vocab_size=rows), head)

    def test_pytorch_reads_a_saved_folder_with_the_same_scores(
        self, saved: Path, medquad_mini: Path, monkeypatch: pytest.MonkeyPatch
    ):
        """By the lines of Python in the folder's own README."""
        pairs = [*read_pairs(medquad_mini, limit=5), ("glaucoma " * 60, "eye pressure " * 60)]
        pairs.append(("What is asthma?", ""))
        ours = jaxrank.Reranker.from_pretrained(saved).predict(pairs)
        readme = (saved / "README.md").read_text()
        code = readme.split("In PyTorch:")[1].split("```python")[1].split("```")[0]
        monkeypatch.chdir(saved.parent)
        scope: dict[str, Any] = {"pairs": pairs}
        with quiet_transformers():
            exec(code, scope)
        np.testing.assert_allclose(np.asarray(scope["scores"]), ours, atol=1e-4)
        assert np.ptp(ours) > 1e-3

    def test_it_learns_four_groups_by_heart(self, medquad_mini: Path):
        config = replace(self.tiny(), head_dropout=0.0)
        losses = learn_four_groups(config, self.tokenizer_folder(), medquad_mini, enough=0.1)
        assert np.all(np.isfinite(losses))
        assert losses[0] > 1.0
        assert losses[-1] < 0.1

    @pytest.mark.usefixtures("full_compilation")
    def test_a_published_size_matches(
        self, preset: str, tmp_path: Path, record_property: Callable[[str, object], None]
    ):
        """With `--junitxml FILE` the largest gradient difference of each size is in the file."""
        has_gradients = preset not in self.forward_only
        compared = compare(
            self.full_size[preset],
            tmp_path,
            np.array(self.full_lengths),
            spread=0.0,
            has_gradients=has_gradients,
        )
        expected = parameter_shapes(
            RerankerConfig(
                self.family, get_family(self.family).presets[preset], compared.config.head
            )
        )
        assert parameter_shapes(compared.config) == expected
        check_forward(compared, FULL_RELATIVE)
        if has_gradients:
            record_property("gradient", f"{preset} {check_gradients(compared):.1e}")


def generate(metafunc: pytest.Metafunc) -> None:
    """Parametrise a suite's tests by its checkpoints and its published sizes."""
    suite = metafunc.cls
    if suite is None or not issubclass(suite, FamilySuite):
        return
    if "checkpoint_name" in metafunc.fixturenames:
        metafunc.parametrize("checkpoint_name", list(suite.checkpoints))
    if "packed_name" in metafunc.fixturenames:
        last_of_each_head = {entry.head: name for name, entry in suite.checkpoints.items()}
        metafunc.parametrize("packed_name", list(last_of_each_head.values()))
    if "preset" in metafunc.fixturenames:
        marked = [
            pytest.param(name, marks=[pytest.mark.slow] if name in suite.slow else [])
            for name in suite.full_size
        ]
        metafunc.parametrize("preset", marked)
