"""Returns backends by name."""

from __future__ import annotations

from functools import cache

import torch

from gsprune.backends.cpp import CppBackend
from gsprune.backends.protocol import Backend, BackendName
from gsprune.backends.torch import TorchBackend

__all__ = ["get_backend"]


def get_backend(name: BackendName, device: torch.device) -> Backend:
    """The backend of that name for tensors on `device`.

    Args:
        name: ``auto`` takes ``cpp`` for CPU tensors, ``triton`` for CUDA tensors and ``torch`` for any other device.
        device: the tensors' device.

    Raises:
        TypeError: the name is not a string.
        ValueError: the name is unknown, or the backend does not support the device.
        MissingExtraError: triton is not installed.
    """
    if not isinstance(name, str):
        raise TypeError(f"`backend` must be 'auto', 'cpp', 'triton' or 'torch', got {type(name).__name__}")
    return _cached_backend(name, device)


@cache  # a backend has no state, and every step needs one
def _cached_backend(name: str, device: torch.device) -> Backend:
    chosen = {"cpu": "cpp", "cuda": "triton"}.get(device.type, "torch") if name == "auto" else name
    if chosen == "torch":
        return TorchBackend()
    if chosen == "cpp":
        if device.type != "cpu":
            raise ValueError(
                f"`backend` 'cpp' works on CPU tensors, but these are on {str(device)!r}; use backend='auto' or 'torch'"
            )
        return CppBackend()
    if chosen == "triton":
        from gsprune.backends.triton import TritonBackend

        return TritonBackend(device)
    raise ValueError(f"`backend` must be 'auto', 'cpp', 'triton' or 'torch', got {name!r}")
