"""Shadows: the channels of a tensor.

A shadow is a set of *layers*. A layer labels the tensor's elements with atoms (positions of parameter axes), as an
int32 array with as many axes as the tensor: size 1 where labels do not vary, the tensor's size where they do. A tensor
after a convolution carries one layer of shape (1, C, 1, 1); a weight carries one for every axis. An axis over which no
layer varies is *fixed*: its size never changes.

Labels: > 0 an atom, 0 fixed (``FIXED``), -1 a constant of any size (``FLEXIBLE``).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

__all__ = [
    "EMPTY",
    "FIXED",
    "FLEXIBLE",
    "FREE",
    "Dot",
    "Kind",
    "Labels",
    "Shadow",
    "Sum",
    "compressed",
    "overlap",
    "reshaped",
    "row_along",
    "varying",
]

Labels = npt.NDArray[np.int32]
FIXED = 0
FLEXIBLE = -1


class Kind(IntEnum):
    """Origin of a tensor. An operation's output has the highest kind among its inputs."""

    CONSTANT = 0  # zeros, arange, ...: made by the forward, of a size that follows the others
    PARAMETER = 1  # computed from parameters and buffers alone
    ACTIVATION = 2  # computed from an input, or unknown


class Dot(NamedTuple):
    """The first operand of a product of two activations.

    Attributes:
        query: the operand's layer over the contracted axis.
        width: the size of that axis.
        is_product: True if the operand is a weight's product, so that scaling the weight's rows corrects the scale.
    """

    query: Labels
    width: int
    is_product: bool


class Sum(NamedTuple):
    """The channels that a tensor sums over, and the divisors that turn the sum into a mean."""

    layers: tuple[Labels, ...]
    counts: tuple[float, ...]


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Shadow:
    """The layers of one tensor.

    Attributes:
        layers: int32 arrays with tensor.ndim axes. Each varies over at least one axis. No two vary over the same axis,
            except where a view has merged axes of a parameter.
        kind: the origin of the tensor.
        source: of a weight, its parameter (with weight norm, the direction). Of an activation, the weight whose product
            it is, also after views, constant factors, and sums with a bias or other products of that weight.
        dot: of a product of queries and keys, the queries, also behind pointwise operations.
        positions: layers along which the tensor's values are positions (an index from ``max`` or ``argmax``).
        sum: of a sum over channels, the channels until the sum is divided.
    """

    layers: Sequence[Labels] = ()
    kind: Kind = Kind.ACTIVATION
    source: str | None = None
    dot: Dot | None = None
    positions: Sequence[Labels] = ()
    sum: Sum | None = None

    def __repr__(self) -> str:
        return f"Shadow({self.kind.name.lower()}, {[layer.shape for layer in self.layers]})"

    @property
    def is_plain(self) -> bool:
        """True if all sizes of the tensor are fixed and its values are no positions, sums or products of channels."""
        return not (self.layers or self.positions or self.sum or self.dot is not None)

    def with_layers(self, layers: Sequence[Labels]) -> Shadow:
        """The same tensor under a view: other layers, the same origin."""
        return Shadow(layers, self.kind, self.source, self.dot)

    def carry(self, move: Callable[[Labels], Labels]) -> Shadow:
        """The shadow after a view: `move` is applied to every layer, and layers that vary nowhere are dropped."""
        moved = [move(layer) for layer in self.layers]
        return self.with_layers([layer for layer in moved if layer.size > 1])


EMPTY = Shadow()
FREE = Shadow(kind=Kind.CONSTANT)


def varying(layer: Labels) -> tuple[int, ...]:
    """The axes over which a layer varies."""
    return tuple(axis for axis, size in enumerate(layer.shape) if size > 1)


def row_along(labels: Labels, axis: int) -> Labels:
    """The labels along one axis, at the first position of all others."""
    return labels[tuple(slice(None) if other == axis else 0 for other in range(labels.ndim))]


def overlap(a: Labels, b: Labels) -> bool:
    """True if two layers vary over a common axis."""
    return any(x > 1 and y > 1 for x, y in zip(a.shape, b.shape, strict=True))


def compressed(layer: Labels, axes: Sequence[int]) -> Labels:
    """`layer`, cut to size 1 along those of `axes` over which all labels are equal."""
    for axis in axes:
        if layer.shape[axis] > 1:
            first = layer.take([0], axis)
            if (layer == first).all():
                layer = first
    return layer


def _blocks(old: Sequence[int], new: Sequence[int]) -> list[tuple[tuple[int, ...], tuple[int, ...]]]:
    """The smallest groups of neighbouring axes that a view maps onto each other: [(old axes, new axes)].

    Axes of size 1 are omitted.
    """
    old_axes = [axis for axis, size in enumerate(old) if size != 1]
    new_axes = [axis for axis, size in enumerate(new) if size != 1]
    blocks = []
    i = j = 0
    while i < len(old_axes) and j < len(new_axes):
        first_i, first_j = i, j
        old_size, new_size = old[old_axes[i]], new[new_axes[j]]
        i, j = i + 1, j + 1
        while old_size != new_size:
            if old_size < new_size:
                old_size *= old[old_axes[i]]
                i += 1
            else:
                new_size *= new[new_axes[j]]
                j += 1
        blocks.append((tuple(old_axes[first_i:i]), tuple(new_axes[first_j:j])))
    return blocks


def reshaped(layer: Labels, old: Sequence[int], new: Sequence[int]) -> tuple[Labels, list[tuple[int, ...]]]:
    """A layer under a view.

    Only the axes that share a block with a varying axis are expanded.

    Args:
        layer: labels of a tensor of shape `old`.
        old: the tensor's shape before the view; no size is 0.
        new: its shape after the view, of the same number of elements.

    Returns:
        the compressed layer of the new shape, and per varying block that the view splits, the new axes over which the
        layer varies (two or more: they cannot be pruned independently).
    """
    old_sizes, new_sizes = list(layer.shape), [1] * len(new)
    splits: list[tuple[int, ...]] = []
    loose: list[int] = []
    for old_axes, new_axes in _blocks(old, new):
        if all(layer.shape[axis] == 1 for axis in old_axes):
            continue
        for axis in old_axes:
            old_sizes[axis] = old[axis]
        for axis in new_axes:
            new_sizes[axis] = new[axis]
        if len(old_axes) > 1 or len(new_axes) > 1:
            loose.extend(new_axes)
        if len(new_axes) > 1:
            splits.append(new_axes)
    result = np.broadcast_to(layer, old_sizes).reshape(new_sizes)
    if loose:
        result = compressed(result, loose)
    splits = [tuple(axis for axis in axes if result.shape[axis] > 1) for axes in splits]
    return result, [axes for axes in splits if len(axes) > 1]
