"""The definition of sums, slices and selection in plain torch, in float64.

The compiled core and the Triton kernels are tested against these functions. `gsprune.backends.TorchBackend` runs them
on devices that neither of the two supports.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

__all__ = ["axis_sums", "select", "slice_tensor"]


def axis_sums(tensor: Tensor, axes: Sequence[int], other: Tensor | None, statistic: str) -> list[Tensor]:
    """Sums of a statistic over everything but one axis, for each axis of `axes`.

        s_a[i] = sum over all elements with index i along axis a of f(w, g)
        f = |w|, w^2, w g, |w g| or (w g)^2 for "abs", "square", "product", "abs_product", "square_product"

    Args:
        tensor: w, of any shape with at least one dimension and any floating dtype.
        axes: the axes, each in [0, ndim).
        other: g, of the same shape; needed by the three products.
        statistic: the name of f.

    Returns:
        one float64 vector of length ``tensor.shape[axis]`` per axis, on the tensor's device.

    Raises:
        ValueError: `other` is missing.
    """
    values = tensor.detach().to(torch.float64)
    if "product" in statistic:
        if other is None:
            raise ValueError(f"`other` must be a tensor for the statistic {statistic!r}, got None")
        values = values * other.detach().to(torch.float64)
    summands = values
    if statistic.startswith("abs"):
        summands = values.abs()
    elif statistic.startswith("square"):
        summands = values * values
    return [summands.movedim(axis, 0).flatten(1).sum(1) if summands.ndim > 1 else summands for axis in axes]


def slice_tensor(tensor: Tensor, keeps: Sequence[tuple[int, Tensor]]) -> Tensor:
    """The kept positions of a tensor, in a new tensor with its own storage.

        out[i, j, ...] = tensor[keep_0[i], keep_1[j], ...]

    Args:
        tensor: any shape and dtype.
        keeps: (axis, (k,) int64 sorted positions on the tensor's device), each axis at most once.

    Returns:
        a tensor of the same dtype and device whose dimensions lie in memory in the same order (channels_last stays so).
    """
    shape = list(tensor.shape)
    kept = tensor.detach()
    for axis, positions in keeps:
        shape[axis] = len(positions)
        kept = kept.index_select(axis, positions)
    strides = [0] * tensor.ndim
    running = 1
    for dim in reversed(_memory_order(tensor)):
        strides[dim] = running
        running *= max(shape[dim], 1)
    return torch.empty_strided(shape, strides, dtype=tensor.dtype, device=tensor.device).copy_(kept)


def select(scores: Tensor, keep: int) -> Tensor:
    """Sorted indices of the `keep` highest scores; of equal scores the lower index is kept.

    Args:
        scores: (n,) float32 without NaN.
        keep: the number of indices, in [0, n].

    Returns:
        (keep,) int64.
    """
    ranked = torch.sort(scores, descending=True, stable=True).indices
    return ranked[:keep].sort().values


def _memory_order(tensor: Tensor) -> list[int]:
    """Dimensions from the slowest to the fastest in memory; among equal strides those of size 1 come last."""
    strides, shape = tensor.stride(), tensor.shape
    return sorted(range(tensor.ndim), key=lambda dim: (-strides[dim], shape[dim] == 1, dim))
