"""The check of the argument `model`."""

from __future__ import annotations

from torch import nn

from gsprune.rewrite.tensors import unwrapped
from gsprune.tracing.wrappers import is_scripted, refusal_of_wrapper

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
    refusal = refusal_of_wrapper(module, "`model`")
    if refusal is not None:
        raise TypeError(refusal)
    return module
