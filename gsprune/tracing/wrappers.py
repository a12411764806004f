"""Modules that must be made plain before pruning: wrappers with hooks on the parameters' shapes, and TorchScript."""

from __future__ import annotations

import torch
from torch import nn

__all__ = ["is_scripted", "wrapper_of"]

_WRAPPERS = ("DistributedDataParallel", "FullyShardedDataParallel", "DataParallel", "FSDPModule")


def wrapper_of(module: nn.Module) -> str | None:
    """The name of the wrapper that `module` is, None where it is none; by name, so that nothing need be imported."""
    return next((kind.__name__ for kind in type(module).__mro__ if kind.__name__ in _WRAPPERS), None)


def is_scripted(module: nn.Module) -> bool:
    """Whether `module` is TorchScript (``torch.jit.script`` or ``trace``), whose code and sizes cannot be changed."""
    return isinstance(module, torch.jit.ScriptModule)
