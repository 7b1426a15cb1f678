"""Documents by the million: what the document store and mining take in time, memory and disk."""
