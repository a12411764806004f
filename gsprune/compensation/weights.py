"""A consumer's weight as a stack of matrices."""

from __future__ import annotations

from torch import Tensor

__all__ = ["as_matrices", "from_matrices"]


def as_matrices(weight: Tensor, axis: int, groups: int, transposed: bool) -> Tensor:
    """(groups, outputs of a group, inputs of a group, kernel positions).

    Args:
        weight: the weight of a layer.
        axis: its input axis.
        groups: the number of convolution groups.
        transposed: whether it belongs to a transposed convolution, whose input axis holds all groups.
    """
    if transposed:
        return weight.reshape(groups, -1, *weight.shape[1:]).transpose(1, 2).flatten(3)
    rows = weight.movedim(axis, 1).unsqueeze(-1).flatten(2)
    return rows.reshape(groups, -1, *rows.shape[1:])


def from_matrices(matrices: Tensor, like: Tensor, axis: int, transposed: bool) -> Tensor:
    """Undo `as_matrices`: a tensor of the shape of `like`."""
    if transposed:
        return matrices.transpose(1, 2).reshape(like.shape)
    return matrices.reshape(like.movedim(axis, 1).shape).movedim(1, axis)
