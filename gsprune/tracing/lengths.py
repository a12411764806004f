"""Lengths that a forward reads off a tensor and asks of another: ``q.view(n, t, heads, x.shape[-1] // heads)``.

Operations show plain numbers. So that it is known whose width a view follows, the shapes that a forward reads while it
is traced hold integers that remember their channels, also through a division into equal parts. A view to such a size
ties the channels of both tensors position by position: the code asks for widths that shrink alike. Where the same units
lie along both, in whatever order (heads last, NesT), they do so by themselves.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gsprune.tracing.shadow import Kind, Labels, varying
from gsprune.tracing.tape import Tape

__all__ = ["is_split", "is_view", "read_shape", "reads_shape", "tie_split", "tie_view"]

_VIEWS = frozenset({torch.Tensor.view, torch.Tensor.reshape, torch.reshape})
_SPLITS: frozenset[Callable[..., Any]] = frozenset(
    (torch.Tensor.split, torch.split, torch.Tensor.split_with_sizes, torch.split_with_sizes)
)


class _Length(int):
    """The length of an axis of channels, or of one of its equal parts.

    Attributes:
        labels: (parts, length) labels of the axis, part by part.
    """

    labels: Labels

    @classmethod
    def of(cls, labels: Labels) -> _Length:
        length = cls(labels.shape[1])
        length.labels = labels
        return length

    def __floordiv__(self, other: int) -> int:
        if isinstance(other, int) and other > 0 and int(self) % other == 0 and int(self) > other:
            return _Length.of(self.labels.reshape(-1, int(self) // other))
        return int(self) // other

    def __reduce__(self) -> tuple[type[int], tuple[int]]:
        """What outlives the trace is a number."""
        return int, (int(self),)

    def __deepcopy__(self, memo: dict[int, Any]) -> int:
        return int(self)


def reads_shape(func: Callable[..., Any]) -> bool:
    """Whether a torch function is ``Tensor.shape`` or ``Tensor.size``."""
    return func is torch.Tensor.size or getattr(func, "__self__", None) is torch.Tensor.shape


def read_shape(tape: Tape, tensor: Tensor, result: Any) -> Any:
    """What ``tensor.shape`` or ``tensor.size(...)`` gave, with lengths that remember their channels.

    Args:
        tape: the tape.
        tensor: whose shape was read.
        result: a `torch.Size`, or one length, which is left as it is unless only one axis has it.
    """
    axes = {varying(layer)[0]: layer.reshape(1, -1) for layer in tape.layers(tensor) if len(varying(layer)) == 1}
    if not axes:
        return result
    if isinstance(result, torch.Size):
        return torch.Size([_Length.of(axes[axis]) if axis in axes else size for axis, size in enumerate(result)])
    found = [labels for axis, labels in axes.items() if labels.shape[1] == result]
    return _Length.of(found[0]) if len(found) == 1 and tuple(tensor.shape).count(result) == 1 else result


def is_view(func: Callable[..., Any]) -> bool:
    """Whether a torch function gives a tensor the shape in its arguments."""
    return func in _VIEWS


def tie_view(tape: Tape, args: Sequence[Any], kwargs: dict[str, Any], out: Tensor, noted: int) -> None:
    """Tie the axes of a view to the channels whose length they were given.

    Of an axis that the view splits, channels go along the part whose size is left open or is such a length: the others
    are numbers in the code.

    Args:
        tape: the tape.
        args: of the view: a tensor, then its sizes, one by one or in a sequence.
        kwargs: the same by name.
        out: what the view returned.
        noted: how many splits the tape held before the view.
    """
    sizes = kwargs.get("shape", args[1:])
    sizes = sizes[0] if len(sizes) == 1 and isinstance(sizes[0], list | tuple) else sizes
    shadow = tape.of(out)
    for axis, size in enumerate(sizes):
        if not isinstance(size, _Length):
            if size == -1:
                _keep_along(tape, axis, noted)
            continue
        _keep_along(tape, axis, noted)
        layers = [layer for layer in shadow.layers if layer.shape[axis] > 1]
        if layers and np.isin(layers[-1], size.labels).all():
            continue  # the tensor's own width
        tape.op = "a view to the width of other channels"
        if layers and len(size.labels) == 1:
            tape.equal_lengths.append((tape.vector(layers[-1], axis), size.labels[0], tape.op))
        elif layers:
            tape.unite(tape.vector(layers[-1], axis).reshape(1, -1), size.labels)
        elif shadow.kind is not Kind.CONSTANT:
            tape.protect(np.unique(size.labels), "a tensor of fixed size is viewed to their number")


def is_split(func: Callable[..., Any]) -> bool:
    """Whether a torch function cuts a tensor into parts of the sizes in its arguments."""
    return func in _SPLITS


def tie_split(tape: Tape, args: Sequence[Any], kwargs: dict[str, Any], parts: Sequence[Tensor]) -> None:
    """Keep the parts of a split as long as the channels whose length they were given.

    Args:
        tape: the tape.
        args: of the split: a tensor, one size or a sequence of them, an axis.
        kwargs: the same by name.
        parts: what the split returned.
    """
    named = {"split_size_or_sizes", "split_size", "split_sizes"} & kwargs.keys()
    sizes = args[1] if len(args) > 1 else kwargs[named.pop()]
    axis = args[2] if len(args) > 2 else kwargs.get("dim", 0)
    for part, size in zip(parts, sizes if isinstance(sizes, list | tuple) else [sizes] * len(parts), strict=True):
        layers = [layer for layer in tape.layers(part) if layer.shape[axis] > 1]
        if isinstance(size, _Length) and len(size.labels) == 1 and part.shape[axis] == size and layers:
            name = "a split into the width of other channels"
            tape.equal_lengths.append((tape.vector(layers[-1], axis % part.ndim), size.labels[0], name))


def _keep_along(tape: Tape, axis: int, noted: int) -> None:
    """Channels of the splits noted since go along this axis, if it is one of theirs."""
    for index in range(noted, len(tape.splits)):
        if axis in tape.splits[index].axes:
            tape.splits[index] = tape.splits[index]._replace(keep=axis, told=True)
