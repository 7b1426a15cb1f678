"""Relevance judgements, runs, measures and paired tests."""
