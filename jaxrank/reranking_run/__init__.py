"""A reranker over files: a run ordered anew, or training groups with the model's scores."""
