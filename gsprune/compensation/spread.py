"""Positions that are spread evenly over a range."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

__all__ = ["spread", "spread_apart"]


def spread(count: int, total: int, seed: Sequence[int]) -> npt.NDArray[np.int64]:
    """Sorted positions in [0, total): a random one in each of `count` equal parts, or all if there are at most `count`.

    Without the jitter, a stride that divides the width of a picture or the number of environments would always hit the
    same column.
    """
    if total <= count:
        return np.arange(total)
    jitter = np.random.default_rng(seed).random(count)
    return ((np.arange(count) + jitter) * (total / count)).astype(np.int64).clip(max=total - 1)


def spread_apart(count: int, total: int, seed: Sequence[int], num_taken: int) -> npt.NDArray[np.int64]:
    """Positions as `spread` returns them, without those of ``spread(num_taken, total, seed)``; at most `count`."""
    free = np.ones(total, np.bool_)
    if num_taken > 0:
        free[spread(num_taken, total, seed)] = False
    positions = np.flatnonzero(free)
    return positions[spread(count, len(positions), (*seed, 1))]
