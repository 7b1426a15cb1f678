"""Documents on disk: Arrow shards, memory-mapped, found by id; and their resumable builder."""
