"""The check of the argument `model`."""

from __future__ import annotations

from torch import nn

from gsprune.rewrite.tensors import unwrapped
from gsprune.tracing.wrappers import refusal_of

__all__ = ["checked_model"]


def checked_model(model: nn.Module) -> nn.Module:
    """The model without `torch.compile`'s wrapper, if it can be pruned.

    Raises:
        TypeError: it is no module, is scripted, or is wrapped in DDP or FSDP.
    """
    module = unwrapped(model)
    refusal = refusal_of(module, "`model`")
    if refusal is not None:
        raise TypeError(refusal)
    return module
