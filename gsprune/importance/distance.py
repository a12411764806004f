"""A criterion with low scores for units that other units can replace."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from gsprune.arrays import Float64Array
from gsprune.importance.criterion import Criterion, ScoreSource, register_criterion
from gsprune.importance.weights import as_matrix, member_rows
from gsprune.tracing.graph import Member

__all__ = ["Fpgm"]


@register_criterion("fpgm")
class Fpgm(Criterion):
    """x_mu = Σ_v ‖w_mu - w_mv‖₂, with w_mu all elements of unit u in member m.

    Units near the geometric median of all units can be replaced by the others. The cost grows with the square of the
    width.

    Source: He et al. 2019, Filter pruning via geometric median, sec. 3.4, https://arxiv.org/abs/1811.00250
    """

    def statistics(self, source: ScoreSource) -> dict[str, Float64Array]:
        """Sums of distances; see `Criterion.statistics`."""
        return member_rows(source, _distances)


def _unit_rows(weight: Tensor, member: Member, num_units: int) -> Tensor:
    """(num_units, elements) float64; units with fewer positions than others are padded with zeros."""
    matrix = as_matrix(weight, member.axis)
    positions = np.flatnonzero(member.units >= 0)
    by_unit = positions[np.argsort(member.units[positions], kind="stable")]
    units = member.units[by_unit]
    counts = np.bincount(units, minlength=num_units)
    slots = np.arange(len(units)) - np.repeat(np.cumsum(counts) - counts, counts)
    rows = matrix.new_zeros((num_units, int(counts.max()), matrix.shape[1]))
    rows[torch.as_tensor(units, device=rows.device), torch.as_tensor(slots, device=rows.device)] = matrix[
        torch.as_tensor(by_unit, device=matrix.device)
    ]
    return rows.flatten(1)


def _distances(weight: Tensor, member: Member, num_units: int) -> Float64Array:
    rows = _unit_rows(weight, member, num_units)
    # Without matrix products, so that the distance of equal units is exactly zero.
    distances = torch.cdist(rows, rows, compute_mode="donot_use_mm_for_euclid_dist")
    result: Float64Array = distances.sum(dim=1).cpu().numpy()
    return result
