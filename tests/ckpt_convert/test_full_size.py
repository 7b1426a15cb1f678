"""Published sizes with random weights made by PyTorch: hidden states and every gradient."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
import transformers
from flax import nnx

from ckpt_convert.rules import export_weights, import_weights
from ckpt_convert.source_config import ARCHITECTURES, read_source_config
from jaxrank.models.families import get_family
from jaxrank.models.module import RerankerConfig, build_module, parameter_shapes

TOKENS = 5

# mamba_ssm starts with 0.02. Transformers' own 0.1 makes a random stack that blows rounding up:
# there PyTorch in float32 is 6e-5 away from float64, and we are 1.3e-4 away from PyTorch.
OPTIONS = {
    "bert": {"num_labels": 1},
    "mamba": {"num_hidden_layers": 24, "initializer_range": 0.02},
}


@pytest.mark.parametrize("family", ["bert", "mamba"])
def test_a_full_size_model_matches_in_hidden_states_and_gradients(family: str, tmp_path: Path):
    architecture = ARCHITECTURES[family]
    head = "classification" if family == "bert" else "linear"
    torch.manual_seed(0)
    model_class = getattr(transformers, architecture.classes[head])
    model = model_class(model_class.config_class(**OPTIONS[family])).eval()
    score = torch.nn.Linear(model.config.hidden_size, 1)
    model.config.save_pretrained(tmp_path)
    config = read_source_config(tmp_path, head=head).config
    preset = {"bert": "bert-base", "mamba": "mamba-130m"}[family]
    shapes = parameter_shapes(config)
    assert shapes == parameter_shapes(
        RerankerConfig(family, get_family(family).presets[preset], head)
    )

    table = architecture.tables[head]
    tensors = dict(model.named_parameters())
    if head == "linear":
        tensors |= {f"score.{name}": tensor for name, tensor in score.named_parameters()}
    parameters = import_weights(
        table,
        {name: tuple(tensor.shape) for name, tensor in tensors.items()},
        lambda name: tensors[name].detach().numpy(),
        wanted={path: spec.shape for path, spec in shapes.items()},
        where=family,
    ).parameters

    ids = np.random.default_rng(0).integers(0, 30000, (1, TOKENS))
    output = model(torch.from_numpy(ids), output_hidden_states=True)
    their_score = output.logits[0, 0] if family == "bert" else score(output[0][0, -1])[0]
    their_score.backward()
    their_hidden = torch.stack(output.hidden_states).detach().numpy()

    graph, state = nnx.split(build_module(config, parameters))

    @jax.jit
    def forward(state: nnx.State):
        module = nnx.merge(graph, state)
        batch = {"input_ids": jnp.asarray(ids), "mask": jnp.ones(ids.shape, bool)}
        return module(**batch)[0], module.backbone.encode(**batch, return_hidden_states=True)[1]

    (our_score, our_hidden), gradients = jax.value_and_grad(forward, has_aux=True)(state)
    assert abs(float(our_score) - float(their_score.detach())) < 1e-4
    distance = np.linalg.norm(np.asarray(our_hidden) - their_hidden, axis=-1)
    assert (distance / np.linalg.norm(their_hidden, axis=-1)).max() < 1e-4

    flat = {".".join(path): leaf.get_value() for path, leaf in nnx.to_flat_state(gradients)}
    ours = export_weights(table, {path: np.asarray(value) for path, value in flat.items()})
    theirs = {name: tensor.grad.numpy() for name, tensor in tensors.items()}
    assert ours.keys() == theirs.keys()
    total = np.sqrt(sum(np.sum(np.square(gradient)) for gradient in theirs.values()))
    for name, gradient in theirs.items():
        allowed = 1e-3 * np.maximum(np.abs(gradient), 1e-3 * total)
        assert np.all(np.abs(ours[name] - gradient) <= allowed), name
