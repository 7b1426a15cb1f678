"""A training run: the wiring of rooms that do not know each other, beside the commands."""
