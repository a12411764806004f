"""Data-parallel training: processes sum gradients, average statistics and agree on the pruned channels."""
