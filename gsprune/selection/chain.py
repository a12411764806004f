"""Chains: the order in which groups lose width, and the part of it that a budget allows.

A flip removes one step of width from one group. A chain is a fixed sequence of flips, along which widths only shrink.
So bisection finds the longest prefix of a chain that stays within a budget, and a larger budget never gives a group
more width than a smaller one.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from gsprune.arrays import Float32Array, IntArray
from gsprune.selection.widths import WidthLimits

__all__ = ["Chain", "cost_floor", "merged_chain", "ratio_chain"]

# Budgets are fractions of totals, so rounding may put the product just below the intended whole number.
_ABSOLUTE_TOLERANCE = 1e-9
_RELATIVE_TOLERANCE = 1e-12


@dataclass(frozen=True, slots=True)
class Chain:
    """A sequence of flips.

    Attributes:
        limits: floors, multiples and present widths of the groups.
        flips: (flips,) int64, the group of every flip.
        starts: (groups,) int64, the width before the first flip.
        steps: (groups,) int64, the width that a flip removes.
    """

    limits: WidthLimits
    flips: IntArray
    starts: IntArray
    steps: IntArray

    def units(self, length: int) -> IntArray:
        """(groups,) int64, units kept after the first `length` flips, with floors and multiples respected."""
        counts = np.bincount(self.flips[:length], minlength=len(self.starts))
        return self.limits.units(self.limits.allowed(self.starts - counts * self.steps))

    def within(self, floor: float, cost: Callable[[IntArray], float]) -> IntArray:
        """(groups,) int64, the units after the longest prefix of the chain with a cost of at least `floor`.

        `cost` is that of a network with given units, which falls along the chain. The present units stay if their cost
        is already below `floor`.
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
    """The smallest cost that a sparsity allows, where `dense` is the cost of the first-seen network."""
    return dense * (1.0 - sparsity) - dense * _RELATIVE_TOLERANCE - _ABSOLUTE_TOLERANCE


def ratio_chain(limits: WidthLimits) -> Chain:
    """The chain that removes the same ratio from all groups, one channel per flip; on a tie earlier groups come first.

    The chain starts from the first-seen widths and ignores scores. So the widths depend only on the request, not on
    earlier steps.
    """
    unfrozen = np.flatnonzero(~limits.frozen)
    widths = limits.initial[unfrozen]
    flips = np.repeat(unfrozen, widths)
    ratios = np.concatenate([np.zeros(0), *(np.arange(1, width + 1) / width for width in widths.tolist())])
    order = np.lexsort((flips, ratios))
    return Chain(limits, flips[order], starts=limits.initial, steps=np.ones_like(limits.initial))


def merged_chain(limits: WidthLimits, scores: Float32Array, pools: list[str]) -> Chain:
    """The chain that removes units by ascending score, within pools of groups whose scores are comparable.

    The pools advance together: the next flip is the one after which the smallest fraction of its pool's first-seen
    width is removed. On a tie, units of later groups and with higher indices are removed first.

    `scores` are (units,) over all groups, and `pools` has the name of every group's pool.
    """
    group_of = np.repeat(np.arange(len(pools)), limits.units(limits.present))
    flips, ratios = [np.zeros(0, dtype=np.int64)], [np.zeros(0)]
    # Pools in the order of their first group that is not frozen: ties between pools go to the earlier one.
    for pool in dict.fromkeys(name for name, frozen in zip(pools, limits.frozen.tolist(), strict=True) if not frozen):
        groups = np.flatnonzero(~limits.frozen & np.array([name == pool for name in pools], dtype=bool))
        units = np.flatnonzero(np.isin(group_of, groups))
        ascending = group_of[units[np.lexsort((-units, scores[units]))]]
        total = limits.initial[groups].sum()
        removed = total - limits.present[groups].sum() + np.cumsum(limits.width_per_unit[ascending])
        flips.append(ascending)
        ratios.append(removed / total)
    order = np.argsort(np.concatenate(ratios), kind="stable")
    return Chain(limits, np.concatenate(flips)[order], starts=limits.present, steps=limits.width_per_unit)
