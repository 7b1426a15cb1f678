"""PyTorch checkpoints to jaxrank and back, and the proof that both compute the same."""
