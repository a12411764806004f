"""How a dense tensor lies in memory, seen from the axes that matter.

A kernel doesn't care whether a weight is contiguous or channels_last: ordered by stride, both are one run of elements
in which some dimensions are looked at and the rest are in between. `runs` gives that view; it is all that the
launchers know of memory formats.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import torch

__all__ = ["Run", "dense", "dense_strides", "memory_order", "runs"]


@dataclass(frozen=True)
class Run:
    """Neighbouring dimensions of a dense tensor, as one.

    Attributes:
        size: Number of positions.
        axis: The tensor's axis that this is, or None where the positions are of no interest one by one.
    """

    size: int
    axis: int | None


@lru_cache(maxsize=4096)
def memory_order(shape: tuple[int, ...], stride: tuple[int, ...]) -> tuple[int, ...]:
    """The axes from the slowest to the fastest in memory.

    Of equal strides an axis of size 1 is the faster one: so PyTorch itself strides both of its memory formats.
    """
    return tuple(sorted(range(len(shape)), key=lambda axis: (-stride[axis], shape[axis] == 1, axis)))


def dense_strides(shape: Sequence[int], order: Sequence[int]) -> tuple[int, ...]:
    """Strides without gaps for `shape` whose axes lie in `order`, slowest first."""
    strides = [0] * len(shape)
    step = 1
    for axis in reversed(order):
        strides[axis] = step
        step *= shape[axis]
    return tuple(strides)


def dense(tensor: torch.Tensor) -> torch.Tensor:
    """The tensor itself where its elements fill one block without gaps or overlaps, else a copy that does.

    The copy's axes lie in memory in the same order.
    """
    expected = _strides_of_copy(tensor.shape, tensor.stride())
    if expected is None:
        return tensor
    return torch.empty_strided(tensor.shape, expected, dtype=tensor.dtype, device=tensor.device).copy_(tensor.detach())


@lru_cache(maxsize=4096)
def _strides_of_copy(shape: tuple[int, ...], stride: tuple[int, ...]) -> tuple[int, ...] | None:
    """Strides without gaps in the same memory order, or None where these have none already."""
    expected = dense_strides(shape, memory_order(shape, stride))
    if all(size == 1 or given == wanted for size, given, wanted in zip(shape, stride, expected, strict=True)):
        return None
    return expected


def runs(shape: Sequence[int], order: Sequence[int], axes: Sequence[int]) -> list[Run]:
    """The dimensions in memory order: one run per axis of `axes`, everything between two of them merged into one run.

    The list always alternates, rest, axis, rest, axis, ..., rest; a rest that is not there has size 1.

    Args:
        shape: Sizes of the tensor.
        order: Its axes from the slowest to the fastest in memory.
        axes: The axes of interest, at least one, each non-negative.

    Returns:
        2 * len(axes) + 1 runs.
    """
    result = [Run(1, None)]
    for axis in order:
        if axis in axes:
            result += [Run(shape[axis], axis), Run(1, None)]
        else:
            result[-1] = Run(result[-1].size * shape[axis], None)
    return result
