"""Training: loss, optimizer, step, loop, and what a run leaves on disk."""
