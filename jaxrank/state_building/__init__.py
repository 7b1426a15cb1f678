"""States of a collection's documents, built on disk and kept, and what is there told."""
