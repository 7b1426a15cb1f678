"""Document states: what a causal model knows of a document, computed once and kept."""
