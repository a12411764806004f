"""Runs the model with the tensors of a follower, which may be a container without a forward."""

from __future__ import annotations

from contextlib import AbstractContextManager

from torch import Tensor, nn

from gsprune.rewrite.binding import Binding
from gsprune.rewrite.tensors import canonical_tensors
from gsprune.rewrite.transaction import temporary_data
from gsprune.tracing.names import named_tensors

__all__ = ["borrow_tensors", "can_borrow_tensors"]


def can_borrow_tensors(model: nn.Module, follower: Binding) -> bool:
    """True if the follower's weights and buffers have the dtypes and devices of the model's."""
    return all(mine.dtype == its.dtype and mine.device == its.device for mine, its in _pairs(model, follower))


def borrow_tensors(model: nn.Module, follower: Binding) -> AbstractContextManager[None]:
    """A block in which the model's tensors have the data of the follower's tensors with the same names."""
    pairs = _pairs(model, follower)
    return temporary_data([mine for mine, _ in pairs], [its.data for _, its in pairs])


def _pairs(model: nn.Module, follower: Binding) -> list[tuple[Tensor, Tensor]]:
    """(the model's tensor, the follower's tensor of that name), if these are two tensors."""
    others = {**named_tensors(follower.module), **follower.tensors}
    pairs = ((tensor, others.get(name, tensor)) for name, tensor in canonical_tensors(model).items())
    return [(mine, its) for mine, its in pairs if mine is not its]
