"""Mamba's selective scan: one signature, several implementations, one of them the specification."""

from jaxrank.ops.selective_scan.api import IMPLEMENTATIONS, selective_scan

__all__ = ["IMPLEMENTATIONS", "selective_scan"]
