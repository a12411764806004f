"""The axes along which an optimizer state is sliced if its shape differs from the parameter's.

Three kinds of shapes are supported. Other states (preconditioners, projections, sketches) mix channels, and no slice of
them equals the result of training with masks.

- Lengths of 1: ``torch.optim.Adafactor`` and SM3 average over these axes (Shazeer & Stern 2018).
- Missing axes: the same averages without ``keepdim``, as in fairseq's and transformers' Adafactor and in CAME.
- Merged axes: flattened copies (Prodigy), and convolutions as matrices.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import combinations
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gsprune.arrays import IntArray
from gsprune.backends import Pattern

__all__ = ["is_preconditioner", "pattern_of_state"]


def pattern_of_state(
    value: Tensor, parameter: Tensor, pattern: Pattern, key: str, siblings: Iterable[Any]
) -> Pattern | None:
    """The cut of a state tensor when its parameter is cut.

    For averages of a square parameter, a key ``*_row`` or ``*_col`` determines the axis. If one of the `siblings` (the
    other entries of the state) is quantised, no axes may be missing or merged, because a vector may hold block scales.

    Returns:
        (axis, kept positions); empty if the state stays whole, None if the shape is not supported.
    """
    shape, full = tuple(value.shape), tuple(parameter.shape)
    if value.layout != torch.strided:
        return None
    if len(shape) == len(full) and all(length in (1, whole) for length, whole in zip(shape, full, strict=True)):
        return tuple((axis, keep) for axis, keep in pattern if shape[axis] == full[axis])
    if any(isinstance(each, Tensor) and _is_quantised(each) for each in siblings):
        return None
    return _merged(shape, full, pattern) if value.numel() == parameter.numel() else _averaged(shape, full, pattern, key)


def is_preconditioner(value: Tensor) -> bool:
    """True for a symmetric or triangular square matrix that is not constant.

    A preconditioner of a square parameter has the parameter's shape, but both its axes are one axis of the parameter.
    """
    if value.ndim != 2 or value.shape[0] != value.shape[1] or value.shape[0] < 2 or not value.is_floating_point():
        return False
    if bool((value == value[0, 0]).all()):
        return False
    rounding = 1e-5 * float(value.abs().max())
    return any(bool((value - other).abs().max() <= rounding) for other in (value.mT, value.triu(), value.tril()))


def _is_quantised(value: Tensor) -> bool:
    return value.numel() > 1 and value.dtype != torch.bool and not (value.is_floating_point() and value.itemsize > 1)


def _averaged(shape: tuple[int, ...], full: tuple[int, ...], pattern: Pattern, key: str) -> Pattern | None:
    """The cut of a state that lacks some of the parameter's axes; None unless all candidates have the same cut."""
    if len(full) >= 2 and key.endswith("_row") and shape == full[:-1]:
        left = [tuple(range(len(full) - 1))]
    elif len(full) >= 2 and key.endswith("_col") and shape == (*full[:-2], full[-1]):
        left = [(*range(len(full) - 2), len(full) - 1)]
    else:
        left = [axes for axes in combinations(range(len(full)), len(shape)) if shape == tuple(full[a] for a in axes)]
    kept = dict(pattern)
    found = [tuple((i, kept[axis]) for i, axis in enumerate(axes) if axis in kept) for axes in left]
    same = all(
        [i for i, _ in other] == [i for i, _ in found[0]]
        and all(np.array_equal(a, b) for (_, a), (_, b) in zip(other, found[0], strict=True))
        for other in found[1:]
    )
    return found[0] if found and same else None


def _merged(shape: tuple[int, ...], full: tuple[int, ...], pattern: Pattern) -> Pattern | None:
    """The cut of a state whose axes each merge neighbouring axes of the parameter."""
    kept, axis, merged = dict(pattern), 0, []
    for i, length in enumerate(shape):
        positions: IntArray = np.zeros(1, np.int64)
        size, is_cut = 1, False
        while axis < len(full) and size * full[axis] <= length:
            keep = kept.get(axis, np.arange(full[axis]))
            positions = (positions[:, None] * full[axis] + keep).reshape(-1)
            size, is_cut, axis = size * full[axis], is_cut or axis in kept, axis + 1
        if size != length:
            return None
        if is_cut:
            merged.append((i, positions))
    return tuple(merged) if axis == len(full) else None
