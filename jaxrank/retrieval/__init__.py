"""The first stage (BM25) and the hard negatives that are mined from it."""
