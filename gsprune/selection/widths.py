"""What width a group may have: floors, multiples, and how many units that is."""

from __future__ import annotations

import math
from typing import NamedTuple

__all__ = ["Limits"]

# A product such as 0.1 * 30 may come out just below the whole number that was meant.
_FLOOR_TOLERANCE = 1e-9


class Limits(NamedTuple):
    """The widths that one group may take; a tuple, since every step makes one per group.

    Attributes:
        initial: first-seen width.
        present: width now.
        width_per_unit: a width is a multiple of it.
        round_to: a width is a multiple of it, too, unless it is the present one.
        min_channels: a width is not below it, unless it is the present one.
        frozen: the width stays.
    """

    initial: int
    present: int
    width_per_unit: int
    round_to: int = 1
    min_channels: int = 1
    frozen: bool = False

    @property
    def multiple(self) -> int:
        """Both of which a width is a multiple."""
        return math.lcm(self.round_to, self.width_per_unit)

    def allowed(self, width: int) -> int:
        """The smallest allowed width that is not below `width`; never above the present one."""
        if self.frozen:
            return self.present
        return min(self.present, -(-max(width, self.min_channels) // self.multiple) * self.multiple)

    def next_lower(self) -> int:
        """The largest allowed width below the present one; the present one where there is none."""
        return self.allowed((self.present - 1) // self.multiple * self.multiple)

    def kept(self, sparsity: float) -> int:
        """The allowed width for a sparsity: initial - floor(initial * sparsity + 1e-9), rounded up.

        Args:
            sparsity: fraction of the first-seen width that is gone, in [0, 1).
        """
        return self.allowed(self.initial - math.floor(self.initial * sparsity + _FLOOR_TOLERANCE))
