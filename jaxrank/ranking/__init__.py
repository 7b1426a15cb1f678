"""Ranking: scores for any number of query-document pairs, and runs reranked by them."""
