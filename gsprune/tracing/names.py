"""The tensors of a module under all their names."""

from __future__ import annotations

from inspect import signature

from torch import Tensor, nn

__all__ = ["named_tensors"]


def named_tensors(module: nn.Module) -> dict[str, Tensor]:
    """Every parameter and buffer under each of its names, also those of tied tensors; parameters first."""
    tensors = _named(module, "named_parameters")
    tensors.update(_named(module, "named_buffers"))
    return tensors


def _named(module: nn.Module, method: str) -> dict[str, Tensor]:
    own = getattr(type(module), method)
    if own is getattr(nn.Module, method) or "remove_duplicate" in signature(own).parameters:
        return dict(own(module, remove_duplicate=False))
    # An override without this argument, as torchrl's losses have.
    listed = {id(tensor) for _, tensor in own(module)}
    everything = getattr(nn.Module, method)(module, remove_duplicate=False)
    return {name: tensor for name, tensor in everything if id(tensor) in listed}
