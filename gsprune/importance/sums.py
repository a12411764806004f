"""Sums of a statistic over every unit of every member, for all groups at once.

The backend sums along axes; here the axes' positions are gathered into units. All axes go through one call of
`numpy.bincount`, since a call per member would cost more than the sums themselves.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from torch import Tensor

from gsprune.backends import Statistic, SumJob
from gsprune.importance.base import FloatArray, ScoreSource, counted_members
from gsprune.tracing.graph import IntArray

__all__ = ["member_sums"]


def member_sums(
    source: ScoreSource, statistic: Statistic, others: Mapping[str, Tensor] | None = None
) -> dict[str, FloatArray]:
    """Sums of a statistic over every unit of every counted member, each tensor read once for all its axes.

    Args:
        source: what there is to read.
        statistic: what is summed, element by element.
        others: the second factor by tensor name, for the statistics of products.

    Returns:
        group name -> (members, units) float64, the first counted member first.

    Raises:
        ScoreError: a group has no counted member.
    """
    key = ("member_sums", source.frozen)
    axes: _CountedAxes | None = source.structure.shared.get(key)
    if axes is None:
        axes = source.structure.shared[key] = _counted_axes(source)
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
        vectors: (axes,) the structure's vector of each axis, in the order of the results.
        slots: (axes, groups + 1) int64, which member of a group the axis is; the last column stands for nobody.
        members: (groups,) int64, number of counted members, 0 for groups that are not scored.
    """

    of_tensor: tuple[tuple[str, tuple[int, ...]], ...]
    vectors: tuple[int, ...]
    slots: IntArray
    members: IntArray


def _counted_axes(source: ScoreSource) -> _CountedAxes:
    structure = source.structure
    groups = structure.traced.groups
    counted = {
        index: counted_members(group, source.tensors)
        for index, group in enumerate(groups)
        if group.name not in source.frozen
    }
    axes: dict[str, set[int]] = {}
    for members in counted.values():
        for member in members:
            axes.setdefault(member.tensor, set()).add(member.axis)
    of_tensor = tuple((name, tuple(sorted(used))) for name, used in axes.items())
    order = {(name, axis): i for i, (name, axis) in enumerate((n, a) for n, used in of_tensor for a in used)}
    slots = np.zeros((len(order), len(groups) + 1), dtype=np.int64)
    members_of = np.zeros(len(groups), dtype=np.int64)
    for index, members in counted.items():
        members_of[index] = len(members)
        for slot, member in enumerate(members):
            slots[order[member.tensor, member.axis], index] = slot
    vectors = tuple(dict(structure.of_axis[name])[axis] for name, axis in order)
    return _CountedAxes(of_tensor, vectors, slots, members_of)


def _gathered(source: ScoreSource, axes: _CountedAxes, sums: list[FloatArray]) -> dict[str, FloatArray]:
    """Sums along axes as (members, units) per group.

    Every (unit, member) has a row, the members of a unit next to each other; what belongs to nobody goes into the last.
    """
    structure = source.structure
    units = np.diff(structure.first_unit)
    first_row = np.concatenate([[0], np.cumsum(units * axes.members)])
    num_rows = int(first_row[-1])
    group_of_unit = np.append(np.repeat(np.arange(len(units)), units), len(units))
    within = np.arange(structure.num_units) - np.repeat(structure.first_unit[:-1], units)
    row_of_unit = np.repeat(first_row[:-1], units) + within * np.repeat(axes.members, units)
    row_of_unit[np.repeat(axes.members == 0, units)] = num_rows
    row_of_unit = np.append(row_of_unit, num_rows)
    bounds = structure.starts.tolist()
    ids = np.concatenate([structure.ids[bounds[v] : bounds[v + 1]] for v in axes.vectors])
    axis = np.repeat(np.arange(len(axes.vectors)), [len(vector) for vector in sums])
    rows = row_of_unit[ids] + axes.slots[axis, group_of_unit[ids]]
    counted = np.bincount(rows, weights=np.concatenate(sums), minlength=num_rows + 1)
    statistics: FloatArray = np.asarray(counted, dtype=np.float64)
    edges = first_row.tolist()
    return {
        group.name: statistics[a:b].reshape(count, -1).T
        for group, a, b, count in zip(structure.traced.groups, edges, edges[1:], units.tolist(), strict=False)
        if a < b
    }
