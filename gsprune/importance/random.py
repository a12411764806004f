"""The control among the criteria: chance."""

from __future__ import annotations

from numbers import Integral
from typing import ClassVar

import numpy as np

from gsprune.importance.base import Criterion, FloatArray, ScoreSource

__all__ = ["Random"]


class Random(Criterion):
    """x_u uniform in [0, 1), the same for all members, from a generator of its own.

    The generator starts anew at every step, from the seed and the widths that the network has by then. So a network
    that has shrunk draws other numbers, and yet the draw is the same for a dry run and the step after it, for a copy, a
    loaded network and every rank of several. Neither torch's nor NumPy's global generator is touched.

    Args:
        seed: another seed, other draws; >= 0.

    Raises:
        TypeError: the seed is no whole number.
        ValueError: the seed is negative.
    """

    default_reduction: ClassVar[str] = "first"

    def __init__(self, seed: int = 0) -> None:
        if isinstance(seed, bool) or not isinstance(seed, Integral):
            raise TypeError(f"`seed` must be a whole number >= 0, got {seed!r}")
        if seed < 0:
            raise ValueError(f"`seed` must be >= 0, got {seed}")
        self.seed: int = int(seed)

    def statistics(self, source: ScoreSource) -> dict[str, FloatArray]:
        """Draws in the order of all groups, scored or not; see `Criterion.statistics`."""
        structure = source.structure
        generator = np.random.Generator(np.random.PCG64([self.seed, *structure.units_of_groups()]))
        draws = generator.random((1, structure.num_units))
        bounds = structure.first_unit.tolist()
        return {
            group.name: draws[:, first:last]
            for group, first, last in zip(structure.traced.groups, bounds, bounds[1:], strict=False)
        }
