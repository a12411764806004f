"""Chains of flips: in which order groups give up width, and how far a budget reaches.

A flip takes one step of width from one group. A chain is a fixed sequence of flips; its widths only shrink and what is
removed only grows along it. So the longest part of it that stays within a budget is found by bisection, and a larger
budget never gives a group more width than a smaller one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from gsprune.selection.widths import Limits

__all__ = ["Chain", "IntVector", "cost_floor", "merged_chain", "ratio_chain"]

IntVector = npt.NDArray[np.int64]

# Budgets are fractions of totals: the product may come out just below the whole number that was meant.
_ABSOLUTE_TOLERANCE = 1e-9
_RELATIVE_TOLERANCE = 1e-12


@dataclass(frozen=True, slots=True)
class Chain:
    """A sequence of flips.

    Attributes:
        limits: of every group of the graph, in its order.
        flips: (flips,) int64, the group that flips.
        starts: (groups,) int64, the width before the first flip.
        steps: (groups,) int64, the width that a flip takes.
    """

    limits: Sequence[Limits]
    flips: IntVector
    starts: IntVector
    steps: IntVector

    def units(self, length: int) -> IntVector:
        """(groups,) int64, units kept after the first `length` flips, with floors and multiples respected."""
        counts = np.bincount(self.flips[:length], minlength=len(self.limits))
        widths = (self.starts - counts * self.steps).tolist()
        return np.array(
            [limit.allowed(width) // limit.width_per_unit for limit, width in zip(self.limits, widths, strict=True)],
            dtype=np.int64,
        )

    def within(self, floor: float, cost: Callable[[IntVector], float]) -> IntVector:
        """The units after the longest part of the chain whose cost is not below `floor`.

        Args:
            floor: the smallest cost allowed.
            cost: cost of a network with given units; falls along the chain.

        Returns:
            (groups,) int64 kept units; the present ones where they cost less already.
        """
        low, high = 0, len(self.flips)
        while low < high:
            middle = (low + high + 1) // 2
            if cost(self.units(middle)) >= floor:
                low = middle
            else:
                high = middle - 1
        return self.units(low)


def cost_floor(dense: float, sparsity: float) -> float:
    """The smallest cost that a sparsity allows.

    Args:
        dense: cost of the network as first seen.
        sparsity: fraction of it that may be gone.
    """
    return dense * (1.0 - sparsity) - dense * _RELATIVE_TOLERANCE - _ABSOLUTE_TOLERANCE


def ratio_chain(limits: Sequence[Limits]) -> Chain:
    """Flips by growing common ratio, one channel each; of groups that flip at the same ratio the first goes first.

    The chain starts from the first-seen widths and knows nothing of scores, so the same request always ends at the same
    widths, whatever came between.
    """
    groups = [np.full(limit.initial, index) for index, limit in enumerate(limits) if not limit.frozen]
    ratios = [np.arange(1, limit.initial + 1) / limit.initial for limit in limits if not limit.frozen]
    flips = np.concatenate(groups) if groups else np.zeros(0, dtype=np.int64)
    order = np.lexsort((flips, np.concatenate(ratios))) if groups else flips
    return Chain(
        limits=limits,
        flips=flips[order],
        starts=np.array([limit.initial for limit in limits], dtype=np.int64),
        steps=np.ones(len(limits), dtype=np.int64),
    )


def merged_chain(limits: Sequence[Limits], scores: Sequence[npt.NDArray[np.float32]], pools: Sequence[str]) -> Chain:
    """Flips by growing score, within pools of groups that are compared with each other.

    The pools advance together: a flip comes when the fraction of its pool's first-seen width that is then gone is the
    smallest of all. Of equal scores the later group's and the higher index go first.

    Args:
        limits: of every group.
        scores: (num_units,) float32 of every group; ignored where it is frozen.
        pools: the pool's name of every group.
    """
    unfrozen = [index for index, limit in enumerate(limits) if not limit.frozen]
    flips: list[IntVector] = []
    ratios: list[npt.NDArray[np.float64]] = []
    for pool in dict.fromkeys(pools[index] for index in unfrozen):
        members = [index for index in unfrozen if pools[index] == pool]
        groups = np.concatenate([np.full(len(scores[index]), index) for index in members])
        values = np.concatenate([scores[index] for index in members])
        ascending = groups[np.lexsort((-np.arange(len(values)), values))]
        total = sum(limits[index].initial for index in members)
        gone = total - sum(limits[index].present for index in members)
        sizes = np.array([limits[index].width_per_unit for index in ascending])
        flips.append(ascending)
        ratios.append((gone + np.cumsum(sizes)) / total)
    all_flips = np.concatenate(flips) if flips else np.zeros(0, dtype=np.int64)
    order = np.argsort(np.concatenate(ratios), kind="stable") if flips else all_flips
    return Chain(
        limits=limits,
        flips=all_flips[order],
        starts=np.array([limit.present for limit in limits], dtype=np.int64),
        steps=np.array([limit.width_per_unit for limit in limits], dtype=np.int64),
    )
