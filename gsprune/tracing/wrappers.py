"""Wrappers whose hooks hold the shapes of the parameters: they must be taken off before pruning."""

from __future__ import annotations

from torch import nn

__all__ = ["wrapper_of"]

_WRAPPERS = ("DistributedDataParallel", "FullyShardedDataParallel", "DataParallel", "FSDPModule")


def wrapper_of(module: nn.Module) -> str | None:
    """The name of the wrapper that `module` is, None where it is none; by name, so that nothing need be imported."""
    return next((kind.__name__ for kind in type(module).__mro__ if kind.__name__ in _WRAPPERS), None)
