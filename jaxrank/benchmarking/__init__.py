"""Measuring time and memory of operations, layers, training steps and scoring, beside rivals."""
