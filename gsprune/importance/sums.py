"""Sums of a statistic over every unit of every member, for all groups at once.

The backend sums along axes; the core gathers the axes' positions into units, all groups in one call.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from torch import Tensor

from gsprune import _core
from gsprune.backends import Statistic, SumJob
from gsprune.importance.base import FloatArray, ScoreSource, counted_members
from gsprune.tracing.graph import IntArray

__all__ = ["member_sums"]


def member_sums(
    source: ScoreSource,
    statistic: Statistic,
    others: Mapping[str, Tensor] | None = None,
    skipped: frozenset[str] = frozenset(),
) -> dict[str, FloatArray]:
    """Sums of a statistic over every unit of every counted member, each tensor read once for all its axes.

    Args:
        source: what there is to read.
        statistic: what is summed, element by element.
        others: the second factor by tensor name, for the statistics of products.
        skipped: names of tensors that do not count, though every group has another that does.

    Returns:
        group name -> (members, units) float64, the first counted member first.

    Raises:
        ScoreError: a group has no counted member.
    """
    key = ("member_sums", source.frozen, skipped)
    axes: _CountedAxes | None = source.structure.shared.get(key)
    if axes is None:
        axes = source.structure.shared[key] = _counted_axes(source, skipped)
    jobs = [
        SumJob(source.tensors[name], used, None if others is None else others[name]) for name, used in axes.of_tensor
    ]
    results = source.backend.axis_sums(jobs, statistic)
    return _gathered(source, axes, [vector for vectors in results for vector in vectors])


@dataclass(frozen=True, slots=True)
class _CountedAxes:
    """The axes that are summed; the same as long as the network is traced the same.

    Attributes:
        of_tensor: (tensor, its axes) in the order of the jobs.
        vectors: (axes,) int64, the structure's vector of each axis, in the order of the results.
        slots: (axes, groups) int64, which member of a group the axis is; 0 where it is none.
        members: (groups,) int64, number of counted members, 0 for groups that are not scored.
    """

    of_tensor: tuple[tuple[str, tuple[int, ...]], ...]
    vectors: IntArray
    slots: IntArray
    members: IntArray


def _counted_axes(source: ScoreSource, skipped: frozenset[str]) -> _CountedAxes:
    structure = source.structure
    groups = structure.traced.groups
    counted = {
        index: tuple(m for m in counted_members(group, source.tensors) if m.tensor not in skipped)
        for index, group in enumerate(groups)
        if group.name not in source.frozen
    }
    axes: dict[str, set[int]] = {}
    for members in counted.values():
        for member in members:
            axes.setdefault(member.tensor, set()).add(member.axis)
    of_tensor = tuple((name, tuple(sorted(used))) for name, used in axes.items())
    order = {(name, axis): i for i, (name, axis) in enumerate((n, a) for n, used in of_tensor for a in used)}
    slots = np.zeros((len(order), len(groups)), dtype=np.int64)
    members_of = np.zeros(len(groups), dtype=np.int64)
    for index, members in counted.items():
        members_of[index] = len(members)
        for slot, member in enumerate(members):
            slots[order[member.tensor, member.axis], index] = slot
    vectors = np.array([dict(structure.of_axis[name])[axis] for name, axis in order], dtype=np.int64)
    return _CountedAxes(of_tensor, vectors, slots, members_of)


def _gathered(source: ScoreSource, axes: _CountedAxes, sums: list[FloatArray]) -> dict[str, FloatArray]:
    """Sums along axes as (members, units) per group."""
    structure = source.structure
    statistics = _core.gather_units(
        sums, axes.vectors, axes.slots, axes.members, structure.first_unit, structure.ids, structure.starts
    )
    gathered: dict[str, FloatArray] = {}
    first = 0
    for group, members, units in zip(
        structure.traced.groups, axes.members.tolist(), structure.units_of_groups(), strict=True
    ):
        last = first + members * units
        if first < last:
            gathered[group.name] = statistics[first:last].reshape(members, units)
        first = last
    return gathered
