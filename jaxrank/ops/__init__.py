"""Array operations: pure functions on arrays, no Flax, nothing kept between calls.

- `selective_scan` and `ssd`, the recurrences of Mamba and of Mamba-2, and `causal_conv1d`, which
  stands before them
- `attention`, one call over XLA and cuDNN
- `rms_norm`, `layer_norm`, `dropout`
"""
