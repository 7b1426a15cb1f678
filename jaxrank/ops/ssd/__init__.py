"""Mamba-2's state-space dual: one signature, two implementations, one of them the specification."""

from jaxrank.ops.ssd.api import IMPLEMENTATIONS, ssd

__all__ = ["IMPLEMENTATIONS", "ssd"]
