"""Backbones, heads and the reranker module that joins them."""
