"""Positions that are spread evenly over a range."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

__all__ = ["spread"]


def spread(count: int, total: int, seed: Sequence[int]) -> npt.NDArray[np.int64]:
    """Sorted positions in [0, total): one at random in each of `count` equal parts, or all if there are no more.

    Without the jitter a stride that divides the width of a picture, or the number of environments, would always hit
    the same column.

    Args:
        count: how many.
        total: the length of the range.
        seed: of the jitter.
    """
    if total <= count:
        return np.arange(total)
    jitter = np.random.default_rng(seed).random(count)
    return ((np.arange(count) + jitter) * (total / count)).astype(np.int64).clip(max=total - 1)
