"""Softmax attention."""

from jaxrank.ops.attention.api import attention

__all__ = ["attention"]
