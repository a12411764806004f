"""A consumer's weight, and samples of its inputs, as stacks of matrices."""

from __future__ import annotations

import torch
from torch import Tensor

from gsprune.arrays import IntArray
from gsprune.compensation.consumer import Consumer

__all__ = ["as_matrices", "from_matrices", "in_groups"]


def in_groups(rows: Tensor, columns: IntArray, groups: int) -> Tensor:
    """(groups, samples, inputs of a group) of (rows, inputs); the positions of a flattened picture are samples."""
    if columns.shape[1] > 1:
        order = torch.from_numpy(columns.T.copy()).to(rows.device)  # (positions, channels)
        return rows[:, order].flatten(0, 1)[None]
    return rows.reshape(len(rows), groups, -1).transpose(0, 1)


def as_matrices(weight: Tensor, consumer: Consumer, groups: int, transposed: bool) -> Tensor:
    """(groups, outputs of a group, inputs of a group, positions of the kernel or of a flattened picture).

    `weight` has all its inputs. The input axis of a transposed convolution holds all groups.
    """
    columns = consumer.columns
    if columns.shape[1] > 1:
        order = torch.from_numpy(columns.reshape(-1)).to(weight.device)
        return weight.movedim(consumer.axis, 1)[:, order].reshape(1, -1, *columns.shape)
    if transposed:
        return weight.reshape(groups, -1, *weight.shape[1:]).transpose(1, 2).flatten(3)
    rows = weight.movedim(consumer.axis, 1).unsqueeze(-1).flatten(2)
    return rows.reshape(groups, -1, *rows.shape[1:])


def from_matrices(matrices: Tensor, like: Tensor, consumer: Consumer, transposed: bool) -> Tensor:
    """Undo `as_matrices` for the kept inputs: a tensor of the shape of `like`."""
    columns, axis = consumer.kept_columns, consumer.axis
    if columns.shape[1] > 1:
        order = torch.from_numpy(columns.reshape(-1)).to(like.device)
        flat = matrices[0].flatten(1)
        return torch.empty_like(flat).index_copy(1, order, flat).movedim(1, axis)
    if transposed:
        return matrices.transpose(1, 2).reshape(like.shape)
    return matrices.reshape(like.movedim(axis, 1).shape).movedim(1, axis)
