"""The control criterion: random scores."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from gsprune.arrays import Float64Array
from gsprune.checks import check_whole
from gsprune.importance.criterion import Criterion, ScoreSource, register_criterion

__all__ = ["Random"]


@register_criterion("random")
class Random(Criterion):
    """x_u uniform in [0, 1), from a separate generator; the same for all members.

    Every step seeds a new generator with `seed` and the present widths. So a network that has shrunk gets new numbers.
    A dry run and the step after it get the same numbers, and so do copies, loaded networks and the ranks of a process
    group. The global generators of torch and NumPy are not used.

    Args:
        seed: >= 0.

    Raises:
        TypeError: `seed` is not a whole number.
        ValueError: `seed` is negative.
    """

    default_reduction: ClassVar[str] = "first"

    def __init__(self, seed: int = 0) -> None:
        self.seed = check_whole("seed", seed, at_least=0)

    def statistics(self, source: ScoreSource) -> dict[str, Float64Array]:
        """One draw per unit of all groups, scored or not; see `Criterion.statistics`."""
        structure = source.structure
        generator = np.random.Generator(np.random.PCG64([self.seed, *structure.units_of_groups()]))
        draws = generator.random((1, structure.num_units))
        return {group.name: draws[:, first:last] for group, first, last in structure.spans()}
