"""Helpers of criteria that read weights: the scored members of a group, and sums over the positions of a unit."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn

from gsprune.arrays import Float64Array
from gsprune.errors import ScoreError
from gsprune.importance.criterion import ScoreSource
from gsprune.tracing.graph import Group, Member

__all__ = ["as_matrix", "member_rows", "scored_members", "unit_sums"]


def as_matrix(weight: Tensor, axis: int) -> Tensor:
    """`weight` as a (shape[axis], other elements) float64 tensor without gradient."""
    return weight.detach().movedim(axis, 0).flatten(1).to(torch.float64)


def scored_members(group: Group, source: ScoreSource) -> tuple[Member, ...]:
    """The members that are scored: floating-point parameters with two axes or more that belong to no copy.

    Raises:
        ScoreError: the group has no such member.
    """
    members = tuple(
        member
        for member in group.members
        if (tensor := source.tensors[member.tensor]).ndim >= 2
        and isinstance(tensor, nn.Parameter)
        and tensor.is_floating_point()
        and not source.structure.traced.is_copy(member.tensor)
    )
    if not members:
        names = ", ".join(sorted({member.tensor for member in group.members}))
        raise ScoreError(
            f"group {group.name!r} has no weight with two axes or more to score (it ties {names}); "
            f"keep its width with ignore=({group.name!r},)"
        )
    return members


def member_rows(source: ScoreSource, row: Callable[[Tensor, Member, int], Float64Array]) -> dict[str, Float64Array]:
    """Group name -> (scored members, units) float64; a row is ``row(weight, member, number of units)``."""
    return {
        group.name: np.stack([row(source.tensors[m.tensor], m, group.num_units) for m in scored_members(group, source)])
        for group in source.groups
    }


def unit_sums(values: Float64Array, member: Member, num_units: int) -> Float64Array:
    """(num_units,) float64: each unit's sum of `values`, which has one number per position of the member's axis."""
    # Positions without a unit (-1) are counted in the first bin, which is dropped: faster than selecting the others.
    return np.asarray(np.bincount(member.units + 1, weights=values, minlength=num_units + 1)[1:], dtype=np.float64)
