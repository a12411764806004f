"""The widths that groups may have: floors, multiples, and the kept width of a sparsity."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import NamedTuple

import numpy as np

from gsprune.arrays import BoolArray, Float64Array, IntArray
from gsprune.selection.options import Selection, per_group
from gsprune.tracing.structure import Structure

__all__ = ["WidthLimits"]

# Rounding may put a product such as 0.1 * 30 just below the intended whole number.
_FLOOR_TOLERANCE = 1e-9

# Larger than any width, so larger multiples and minima can be replaced by it. It fits int64.
_WIDEST = 2**40


class WidthLimits(NamedTuple):
    """The widths that every group may take, in the structure's order of groups.

    Attributes:
        initial: (groups,) int64, first-seen widths.
        present: (groups,) int64, present widths.
        width_per_unit: (groups,) int64, the width of one unit.
        multiple: (groups,) int64; new widths are multiples of it. It is a multiple of `width_per_unit`.
        min_channels: (groups,) int64; new widths are not below it.
        frozen: (groups,) bool, True for groups that keep their width.
    """

    initial: IntArray
    present: IntArray
    width_per_unit: IntArray
    multiple: IntArray
    min_channels: IntArray
    frozen: BoolArray

    @classmethod
    def of(
        cls, structure: Structure, initial_widths: Mapping[str, int], request: Selection, frozen: Collection[str]
    ) -> WidthLimits:
        """The limits of a request.

        Groups in `frozen` keep their width. Groups without an initial width have the present one.

        Raises:
            ValueError: a glob matches no group.
        """
        options = (request.round_to, request.min_channels)
        # Only the present widths change as a network shrinks.
        key = None if dict in map(type, options) else ("limits", *options, frozenset(frozen))
        cached: tuple[Mapping[str, int], WidthLimits] | None = structure.cache.get(key)
        if cached is None or cached[0] != initial_widths:
            cached = (dict(initial_widths), cls._of(structure, initial_widths, request, frozen))
        if key is not None:
            structure.cache[key] = cached
        limits, first_unit = cached[1], structure.first_unit
        present = (first_unit[1:] - first_unit[:-1]) * limits.width_per_unit  # several times as fast as np.diff
        return limits._replace(present=present)

    @classmethod
    def _of(
        cls, structure: Structure, initial_widths: Mapping[str, int], request: Selection, frozen: Collection[str]
    ) -> WidthLimits:
        groups = structure.traced.groups
        per_unit = np.array([group.width_per_unit for group in groups], dtype=np.int64)
        round_to = per_group("round_to", request.round_to, structure.traced, 1)
        floors = per_group("min_channels", request.min_channels, structure.traced, 1)
        return cls(
            initial=np.array([initial_widths.get(group.name, group.width) for group in groups], dtype=np.int64),
            present=np.diff(structure.first_unit) * per_unit,
            width_per_unit=per_unit,
            multiple=np.lcm(np.array([min(number, _WIDEST) for number in round_to], dtype=np.int64), per_unit),
            min_channels=np.array([min(floor, _WIDEST) for floor in floors], dtype=np.int64),
            frozen=np.array([group.name in frozen for group in groups], dtype=bool),
        )

    def allowed(self, widths: IntArray) -> IntArray:
        """The smallest allowed widths that are not below `widths`; never above the present ones."""
        rounded = -(-np.maximum(widths, self.min_channels) // self.multiple) * self.multiple
        return np.where(self.frozen, self.present, np.minimum(self.present, rounded))

    def next_lower(self) -> IntArray:
        """The largest allowed widths below the present ones; the present width for a group that cannot shrink."""
        return self.allowed((self.present - 1) // self.multiple * self.multiple)

    def kept(self, sparsity: Float64Array | float) -> IntArray:
        """The allowed widths for a sparsity: initial - floor(initial * sparsity + 1e-9), rounded up.

        The sparsity is the removed fraction of the first-seen width, in [0, 1): one number, or (groups,).
        """
        removed = np.floor(self.initial * sparsity + _FLOOR_TOLERANCE).astype(np.int64)
        return self.allowed(self.initial - removed)

    def units(self, widths: IntArray) -> IntArray:
        """The numbers of units for given widths."""
        return widths // self.width_per_unit
