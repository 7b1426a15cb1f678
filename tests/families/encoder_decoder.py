"""What is checked of encoder-decoders alone."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest
import torch

from ckpt_convert.load import load
from ckpt_convert.parity import certify, read_pairs
from ckpt_convert.torch_oracle import TorchReranker
from jaxrank.errors import InputError
from tests.families.comparison import SMALL_RELATIVE, Compared, to_jax
from tests.families.suite import FamilySuite


class EncoderDecoderSuite(FamilySuite):
    def test_the_one_decoder_step_is_the_first_of_a_whole_text(self, compared: Compared):
        backbone: Any = compared.module.backbone
        batch = to_jax(compared.batch)
        rows, length = batch["input_ids"].shape
        step = backbone.encode(**batch, decoder_input="start")
        text = backbone.encode(**batch, decoder_input="text")
        assert step.shape == (rows, 1, 24)
        assert text.shape == (rows, length, 24)
        np.testing.assert_allclose(step[:, 0], text[:, 0], atol=1e-5)
        assert np.abs(text[:, 0] - text[:, 1]).max() > 1e-2, "equal positions show nothing"

    def test_a_decoder_position_sees_no_later_token_but_through_the_encoder(
        self, get_compared: Any
    ):
        """With the encoder's result held still, a changed token shows from the next position on."""
        compared = get_compared("classifier")
        backbone: Any = compared.module.backbone
        ids = jnp.array([[5, 6, 7, 8]])
        changed = ids.at[0, 2].set(9)
        positions = jnp.arange(4)
        source, _ = backbone.encoder(backbone.token(ids), positions)
        one, two = (
            backbone.decoder(backbone.token(i), positions, source=source)[0] for i in (ids, changed)
        )
        np.testing.assert_array_equal(one[:, :2], two[:, :2])
        assert np.all(np.abs(one[:, 2:] - two[:, 2:]).max(axis=-1) > 1e-3)

    def test_the_classifier_scores_the_vector_at_the_last_of_several_ends(self, get_compared: Any):
        """A pair holds two ends or three; PyTorch looks for the last, we for the last token."""
        compared = get_compared("classifier")
        ids = compared.batch["input_ids"].copy()
        ids[:, 0] = 2
        batch = compared.batch | {"input_ids": ids}
        reranker: TorchReranker = compared.torch_reranker
        with torch.no_grad():
            _, theirs = reranker(batch)
        ours = np.asarray(compared.module(**to_jax(batch)))
        assert np.abs(ours - theirs.numpy()).max() < SMALL_RELATIVE
        assert np.abs(ours - compared.scores).max() > 1e-3

    def test_a_start_token_beyond_the_vocabulary_is_refused(self, get_compared: Any):
        config = get_compared("classifier").config.backbone
        with pytest.raises(InputError, match="decoder_start_token_id is 60; the vocabulary has 60"):
            replace(config, decoder_start_token_id=60)

    def test_the_certificate_names_the_states_of_both_stacks(self, saved: Path, medquad_mini: Path):
        certificate = certify(saved, load(saved), read_pairs(medquad_mini, limit=3))
        last = "final norm" if self.family == "t5" else "layer 2"
        names = ["embeddings", "layer 1", last]
        assert [row.where for row in certificate.layers] == [
            f"{stack} {name}" for stack in ("encoder", "decoder") for name in names
        ]
        assert certificate.has_passed
