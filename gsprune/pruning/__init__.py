"""Pruning steps: request, choice of channels, rewrite, report."""
