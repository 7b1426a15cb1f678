"""Layouts of official files: each module tells where one keeps documents, queries, judgements."""
