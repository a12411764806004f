"""Gradual group-structured pruning of PyTorch networks while they train, with a compiled core."""
