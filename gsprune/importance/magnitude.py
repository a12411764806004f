"""Criteria that read the magnitudes of weights."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from gsprune.importance.criterion import Criterion, ScoreSource, register_criterion
from gsprune.importance.statistics import FlatStatistics, member_sums

__all__ = ["L1", "L2", "Lamp"]


@register_criterion("l1")
class L1(Criterion):
    """x_mu = Σ |w| over all elements of unit u in member m.

    Source: Li et al. 2017, Pruning filters for efficient ConvNets, sec. 3.1, https://arxiv.org/abs/1608.08710
    """

    def statistics(self, source: ScoreSource) -> FlatStatistics:
        """Sums of magnitudes; see `Criterion.statistics`."""
        return member_sums(source, "abs")


@register_criterion("l2")
class L2(Criterion):
    """x_mu = sqrt(Σ w²) over all elements of unit u in member m.

    Source: He et al. 2018, Soft filter pruning, sec. 3.3 with p = 2,
    https://arxiv.org/abs/1808.06866
    """

    def statistics(self, source: ScoreSource) -> FlatStatistics:
        """Euclidean norms; see `Criterion.statistics`."""
        return member_sums(source, "square").map(np.sqrt)


@register_criterion("lamp")
class Lamp(Criterion):
    """x_mu = Σ w² over all elements of unit u in member m, with the normalizer "lamp".

    Source: Lee et al. 2021, Layer-adaptive sparsity for the magnitude-based pruning, sec. 3.1,
    https://arxiv.org/abs/2010.07611; a unit takes the place of a weight.
    """

    default_normalizer: ClassVar[str] = "lamp"

    def statistics(self, source: ScoreSource) -> FlatStatistics:
        """Squared norms; see `Criterion.statistics`."""
        return member_sums(source, "square")
