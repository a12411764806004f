"""The check of the argument `model`."""

from __future__ import annotations

from torch import nn

from gsprune.rewrite.tensors import unwrapped
from gsprune.tracing.wrappers import is_scripted, wrapper_of

__all__ = ["checked_model"]


def checked_model(model: nn.Module) -> nn.Module:
    """The model without `torch.compile`'s wrapper, if it can be pruned.

    Raises:
        TypeError: it is no module, is scripted, or is wrapped in DDP or FSDP.
    """
    if is_scripted(model):
        raise TypeError(
            f"`model` is a scripted or traced TorchScript module ({type(model).__name__}), whose code and sizes cannot"
            " be changed: prune the Python module, and call torch.jit.script or torch.jit.trace afterwards"
        )
    module = unwrapped(model)
    name = wrapper_of(module)
    if name is not None:
        raise TypeError(
            f"`model` is wrapped in {name}, whose hooks hold the old shapes: prune the inner module (`model.module`) on"
            " every rank, then wrap it again"
        )
    return module
