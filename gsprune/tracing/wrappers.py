"""Recognises modules that cannot be pruned: wrappers of other modules (DDP, FSDP), and TorchScript."""

from __future__ import annotations

import torch
from torch import nn

__all__ = ["is_scripted", "wrapper_of"]

_WRAPPERS = ("DistributedDataParallel", "FullyShardedDataParallel", "DataParallel", "FSDPModule")


def wrapper_of(module: nn.Module) -> str | None:
    """The class name of a wrapper, None for other modules. Compares names, so that no class is imported."""
    return next((kind.__name__ for kind in type(module).__mro__ if kind.__name__ in _WRAPPERS), None)


def is_scripted(module: nn.Module) -> bool:
    """True if `module` is TorchScript (``torch.jit.script`` or ``trace``), whose code and sizes cannot be changed."""
    return isinstance(module, torch.jit.ScriptModule)
