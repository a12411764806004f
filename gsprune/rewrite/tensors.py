"""The tensors of a module by name."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import torch
from torch import Tensor, nn

from gsprune.errors import RewriteError
from gsprune.tracing.names import named_tensors

__all__ = ["aliases_of", "canonical_tensors", "check_gradient", "unwrapped"]


def unwrapped(model: nn.Module) -> nn.Module:
    """The module below `torch.compile`'s wrapper, else the module itself.

    Raises:
        TypeError: `model` is no module.
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"`model` must be a torch.nn.Module, got {type(model).__name__}")
    children: Any = model.__dict__.get("_modules", {})  # `hasattr` would also find the attributes of a model inside
    if "_orig_mod" in children:  # TorchScript's children have no `get`
        return cast(nn.Module, children["_orig_mod"])
    return model


def canonical_tensors(model: nn.Module) -> dict[str, Tensor]:
    """Every parameter and buffer once, under its first name."""
    tensors: dict[str, Tensor] = dict(model.named_parameters())
    tensors.update(model.named_buffers())
    return tensors


def aliases_of(model: nn.Module) -> dict[str, str]:
    """Other names of tied tensors -> the first name."""
    first_names = {id(tensor): name for name, tensor in canonical_tensors(model).items()}
    names = {name: first_names[id(tensor)] for name, tensor in named_tensors(model).items()}
    return {name: first for name, first in names.items() if name != first}


def check_gradient(parameter: Tensor, gradient: Tensor, name: Callable[[], str]) -> None:
    """Check that a gradient can be sliced like its parameter; `name` returns the parameter's name.

    Raises:
        RewriteError: the gradient is sparse, or of another shape.
    """
    if gradient.shape != parameter.shape or gradient.layout != torch.strided:
        raise RewriteError(
            f"the gradient of {name()!r} is {gradient.layout} of shape {tuple(gradient.shape)}, which cannot be sliced"
            f" with the parameter's {tuple(parameter.shape)}; nothing was changed. Call optimizer.zero_grad() first"
        )
