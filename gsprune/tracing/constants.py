"""Constants of a forward: numbers and sizes written in its code, and tensors that it makes.

Zeros, ones and noise may be of any width. Values that depend on their positions (``arange``, ``linspace``, ``eye``) may
not: in the smaller network they would meet other channels. A number counts as written if a module whose method is
running stores it (``self.scale``), or if that method's code contains it.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator, Sequence
from types import FrameType
from typing import Any

from torch import Tensor, nn

from gsprune.tracing.marks import is_noise
from gsprune.tracing.shadow import Kind, Shadow

__all__ = ["UNEVEN", "are_written_sizes", "is_written", "number_of", "typical_number", "uneven_axes"]

UNEVEN = "values computed from the channels' positions"


def uneven_axes(tensor: Tensor, shadow: Shadow) -> tuple[int, ...]:
    """The axes along which a constant's values differ; none if they are random or follow channels."""
    if shadow.kind is not Kind.CONSTANT or tensor.numel() < 2 or tensor.is_meta or is_noise(tensor):
        return ()
    data = tensor.detach()
    return tuple(
        axis
        for axis, size in enumerate(tensor.shape)
        if size > 1
        and all(layer.shape[axis] == 1 for layer in shadow.layers)
        and bool((data != data.narrow(axis, 0, 1)).any())
    )


def number_of(value: Any) -> float | None:
    """The value of a Python number or of a tensor with one element; None for anything else."""
    if isinstance(value, Tensor):
        return float(value) if value.numel() == 1 and not value.is_complex() and not value.is_meta else None
    return float(value) if isinstance(value, int | float) else None


def typical_number(value: Any) -> float | None:
    """The value of a Python number, or the mean absolute value of a tensor's finite entries; None without any."""
    if not isinstance(value, Tensor):
        return number_of(value)
    if value.is_meta or value.is_complex():
        return None
    finite = value.detach()[value.isfinite()]
    return float(finite.double().abs().mean()) if finite.numel() else None


def is_written(value: float) -> bool:
    """True if a running module stores the number, or its method's code contains it.

    Integers do not count: an 8 may be the number of heads or the root of 64.
    """
    for owner, frame in _running_modules():
        numbers = [item for item in (*vars(owner).values(), *frame.f_code.co_consts) if isinstance(item, float)]
        if any(math.isclose(number, value, rel_tol=1e-6) for number in numbers):
            return True
    return False


def are_written_sizes(sizes: Sequence[int]) -> bool:
    """True if all sizes of a split are constants in the code of a running method.

    Sizes that a module stores do not count, since they can follow the channels (`gsprune.rewrite.repair`).
    """
    for _, frame in _running_modules():
        constants = frame.f_code.co_consts
        if tuple(sizes) in constants or set(sizes) <= {item for item in constants if isinstance(item, int)}:
            return True
    return False


def _running_modules() -> Iterator[tuple[nn.Module, FrameType]]:
    """Modules whose methods are on the stack, innermost first."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        owner = frame.f_locals.get("self")
        if isinstance(owner, nn.Module):
            yield owner, frame
        frame = frame.f_back
