"""A whole training step lowers for NVIDIA GPUs, at full size, on a machine without one.

Parameters are shapes only. Named implementations, since "auto" takes what fits the machine at hand;
cuDNN's attention cannot be exported without a GPU.
"""

import re

import jax
import jax.numpy as jnp

from jaxrank.models.families import FAMILIES
from jaxrank.models.implementations import Implementations
from jaxrank.models.module import RerankerConfig, init_module
from jaxrank.training.optimizer import OptimizerConfig, make_optimizer
from jaxrank.training.step import init_state, make_train_step

GROUPS, CANDIDATES, LENGTH = 8, 8, 512


def export_train_step(family: str, preset: str, implementations: Implementations) -> str:
    """The StableHLO for cuda of a step in bfloat16, optimizer included."""
    config = RerankerConfig(family, FAMILIES[family].presets[preset])
    optimizer, schedule = make_optimizer(OptimizerConfig(), total_steps=10_000)

    def start():
        module = init_module(config, seed=0, dtype=jnp.bfloat16, implementations=implementations)
        return init_state(module, optimizer, key=jax.random.key(0))

    graphdef, state = jax.eval_shape(start)
    step = make_train_step(graphdef, optimizer, schedule)
    rows = jax.ShapeDtypeStruct((GROUPS, CANDIDATES, LENGTH), jnp.int32)
    candidates = jax.ShapeDtypeStruct((GROUPS, CANDIDATES), jnp.bool_)
    batch = {
        "candidate_mask": candidates,
        "input_ids": rows,
        "token_type_ids": rows,
        "mask": jax.ShapeDtypeStruct(rows.shape, jnp.bool_),
    }
    exported = jax.export.export(step, platforms=["cuda"])(state, batch)
    module = exported.mlir_module()
    # The whole state comes back, in the memory of what came in: parameters, Adam's averages.
    donated = len(jax.tree.leaves((state.parameters, state.optimizer_state)))
    assert module.count("tf.aliasing_output") + module.count("jax.buffer_donor") >= donated
    return module


def kernel_calls(module: str) -> list[str]:
    """Names of the Mosaic kernels that a module calls, from the symbols in their code."""
    calls = [line for line in module.splitlines() if "custom_call @mosaic_gpu" in line]
    return [
        name
        for call in calls
        for name in re.findall(r"\\00(selective_scan_[a-z]+)_mosaic_gpu\b", call)
    ]


def test_train_step_of_mamba_130m_exports_with_its_scan_kernels():
    module = export_train_step("mamba", "mamba-130m", Implementations(selective_scan="mosaic"))
    calls = kernel_calls(module)
    assert set(calls) == {"selective_scan_forward", "selective_scan_backward"}


def test_train_step_of_bert_base_exports_with_plain_attention():
    module = export_train_step("bert", "bert-base", Implementations(attention="xla"))
    heads = FAMILIES["bert"].presets["bert-base"].num_heads
    scores = f"tensor<{GROUPS * CANDIDATES}x{heads}x{LENGTH}x{LENGTH}x"
    assert scores in module
    assert "custom_call @__cudnn" not in module
