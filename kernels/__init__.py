"""Kernels of the backends: the definition in plain torch, and the Triton kernels."""
