"""Recognises modules that cannot be pruned: wrappers of other modules (DDP, FSDP), and TorchScript."""

from __future__ import annotations

import torch
from torch import nn

__all__ = ["is_scripted", "refusal_of", "wrapper_of"]

_SHARDING = ("FullyShardedDataParallel", "FSDPModule")
_WRAPPERS = ("DistributedDataParallel", "DataParallel", *_SHARDING)


def wrapper_of(module: nn.Module) -> str | None:
    """The class name of a wrapper, None for other modules. Compares names, so that no class is imported."""
    return next((kind.__name__ for kind in type(module).__mro__ if kind.__name__ in _WRAPPERS), None)


def refusal_of(module: nn.Module, name: str) -> str | None:
    """The reason why a wrapped or scripted module cannot be pruned, with the way out; None for other modules.

    `name` is the module's name in the message. FSDP can shard a module in place, so there may be no module inside.
    """
    if is_scripted(module):
        return (
            f"{name} is a scripted or traced TorchScript module ({type(module).__name__}), whose code and sizes cannot"
            " be changed: prune the Python module, and call torch.jit.script or torch.jit.trace afterwards"
        )
    wrapper = wrapper_of(module)
    if wrapper is None:
        return None
    if wrapper in _SHARDING:
        return (
            f"{name} is wrapped in {wrapper}, and its parameters are shards: prune the model before it is sharded, or"
            " load its full state dict into a model that is not, prune that, and shard it"
        )
    return (
        f"{name} is wrapped in {wrapper}, whose hooks hold the old shapes: prune the module inside (`.module`) on every"
        " rank, then wrap it again"
    )


def is_scripted(module: nn.Module) -> bool:
    """True if `module` is TorchScript (``torch.jit.script`` or ``trace``), whose code and sizes cannot be changed."""
    return isinstance(module, torch.jit.ScriptModule)
