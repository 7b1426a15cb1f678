"""PyTorch's side of `python -m jaxrank.bench --against scripts.pytorch_rivals`.

    mamba_ssm              the selective scan and Mamba-2's chunk scan of that package, CUDA alone
    transformers           its functions and classes as a user calls them: SDPA attention, bfloat16
                           autocast on a GPU, fused AdamW, dropout as ours; its Mamba takes the
                           kernels of mamba_ssm and causal_conv1d by itself where it finds them
    transformers compiled  the same under torch.compile
    torch                  SDPA attention alone (flash where PyTorch takes it)
    sentence-transformers  CrossEncoder.predict on the same texts

Inputs are ours, shared through DLPack without a copy; weights of layers and of what scores are ours
too, so values are compared before anything is timed. What trains starts at random, with as many
parameters as ours. All tokens are real, so PyTorch is given no mask, which is its fastest path.
"""

from jaxrank.benchmarking.rivals import MakeRival
from scripts.pytorch_rivals.networks import transformers_network
from scripts.pytorch_rivals.operations import mamba_ssm_operation, sdpa, transformers_operation
from scripts.pytorch_rivals.texts import cross_encoder

RIVALS: dict[str, MakeRival] = {
    "mamba_ssm": mamba_ssm_operation,
    "torch": sdpa,
    "transformers": lambda case: transformers_operation(case) or transformers_network(case),
    "transformers compiled": lambda case: (
        transformers_operation(case, is_compiled=True)
        or transformers_network(case, is_compiled=True)
    ),
    "sentence-transformers": cross_encoder,
}
