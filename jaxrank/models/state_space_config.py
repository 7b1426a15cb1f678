"""The sizes and constants that Mamba and Mamba-2 share; see `jaxrank.models.state_space`."""

from dataclasses import dataclass

from jaxrank.errors import InputError
from jaxrank.models.backbone import BackboneConfig


@dataclass(frozen=True)
class StateSpaceConfig(BackboneConfig):
    """Sizes and constants of either; the defaults are the 130m size's."""

    vocab_size: int = 50280
    """Rows of the token table; GPT-NeoX's 50,277 tokens, padded to a multiple of 8."""

    hidden_size: int = 768
    """Width of the residual stream; the default is the 130m size."""

    num_layers: int = 24
    """Mixer layers; the default is the 130m size."""

    state_size: int = 16
    """States of each inner channel (N); as published."""

    conv_width: int = 4
    """Tokens that the causal convolution sees, the current one included; as published."""

    expand: int = 2
    """Inner channels for each channel of the residual stream; as published."""

    use_bias: bool = False
    """Whether the input and output projections have biases; the published models have none."""

    use_conv_bias: bool = True
    """Whether the convolution has a bias; the published models have one."""

    residual_in_float32: bool = True
    """Whether the residual stream stays float32 under bfloat16 compute; as published."""

    norm_epsilon: float = 1e-5
    """Added to the mean square in every normalisation; as published."""

    initializer_range: float = 0.02
    """Standard deviation of the token table at the start; mamba_ssm's (transformers has 0.1)."""

    rescale_prenorm_residual: bool = True
    """Whether output projections start smaller by 1 / sqrt(num_layers), so that the residual
    stream does not grow with depth; mamba_ssm's default (transformers has False)."""

    time_step_min: float = 0.001
    """Smallest time step at the start; steps are log-uniform up to time_step_max. As published."""

    time_step_max: float = 0.1
    """Largest time step at the start; as published."""

    time_step_floor: float = 1e-4
    """Time steps at the start are raised to at least this; as published."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.time_step_min <= self.time_step_max:
            raise InputError(
                f"{type(self).__name__}: time_step_min is {self.time_step_min} and time_step_max "
                f"{self.time_step_max}; needed is 0 < time_step_min <= time_step_max"
            )

    @property
    def inner_size(self) -> int:
        """Channels inside the mixer."""
        return self.expand * self.hidden_size
