"""The check of the argument `model`."""

from __future__ import annotations

from torch import nn

from gsprune.tracing.wrappers import is_scripted, wrapper_of

__all__ = ["checked_model"]


def checked_model(model: object) -> nn.Module:
    """The model, if it can be pruned.

    Raises:
        TypeError: it is no module, is scripted, or is wrapped in DDP or FSDP.
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"`model` must be a torch.nn.Module, got {type(model).__name__}")
    if is_scripted(model):
        raise TypeError(
            f"`model` is a scripted or traced TorchScript module ({type(model).__name__}), whose code and sizes cannot"
            " be changed: prune the Python module, and call torch.jit.script or torch.jit.trace afterwards"
        )
    name = wrapper_of(model)
    if name is not None:
        raise TypeError(
            f"`model` is wrapped in {name}, whose hooks hold the old shapes: prune the inner module (`model.module`) on"
            " every rank, then wrap it again"
        )
    return model
