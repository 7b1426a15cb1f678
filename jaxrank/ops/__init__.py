"""Array operations: pure functions on arrays, no Flax, nothing kept between calls.

- `selective_scan`, the recurrence of Mamba, and `causal_conv1d`, which stands before it
- `attention`, one call over XLA and cuDNN
- `rms_norm`, `layer_norm`, `dropout`
"""
