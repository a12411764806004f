"""Sums of a statistic over every unit of every member, for all groups at once.

The backend sums along axes; the core gathers the axes' positions into units, all groups in one call.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt
from torch import Tensor

from gsprune import _core
from gsprune.backends import Statistic
from gsprune.importance.base import FloatArray, ScoreSource, counted_members
from gsprune.tracing.graph import IntArray
from gsprune.tracing.structure import Structure

__all__ = ["CountedAxes", "FlatStatistics", "counted_axes", "member_sums"]


class FlatStatistics(Mapping[str, FloatArray]):
    """Group name -> (members, units) float64, kept as one array; only groups that have statistics.

    Args:
        values: the (members, units) of one group after the other.
        members: (groups,) int64, how many members each group of the structure has; 0 where it has no statistics.
        structure: the network's groups.
    """

    def __init__(self, values: FloatArray, members: IntArray, structure: Structure) -> None:
        self.flat = values
        self.members = members
        self.structure = structure

    def mapped(self, function: Callable[[FloatArray], FloatArray]) -> FlatStatistics:
        """The same with an element-wise function taken of every statistic."""
        return FlatStatistics(function(self.flat), self.members, self.structure)

    def reduced(self, reduction: str) -> npt.NDArray[np.float32]:
        """(units,) float32 over all groups, 0 in those that have no statistics.

        Args:
            reduction: a key of `gsprune.importance.reductions.REDUCTIONS`, which says what it is.
        """
        return _core.reduce_members(self.flat, self.members, self.structure.first_unit, reduction)

    @cached_property
    def _by_group(self) -> dict[str, FloatArray]:
        counts = zip(self.structure.traced.groups, self.members.tolist(), self.structure.units_of_groups(), strict=True)
        found: dict[str, FloatArray] = {}
        first = 0
        for group, members, units in counts:
            last = first + members * units
            if first < last:
                found[group.name] = self.flat[first:last].reshape(members, units)
            first = last
        return found

    def __getitem__(self, name: str) -> FloatArray:
        """The statistics of one group."""
        return self._by_group[name]

    def __iter__(self) -> Iterator[str]:
        """Names of the groups that have statistics, in the structure's order."""
        return iter(self._by_group)

    def __len__(self) -> int:
        """How many groups have statistics."""
        return len(self._by_group)


@dataclass(frozen=True, slots=True)
class CountedAxes:
    """The axes that are summed; the same as long as the network is traced the same.

    Attributes:
        names: the tensors, in the order of the jobs.
        axes: the axes of each.
        vectors: (axes,) int64, the structure's vector of each axis, in the order of the results.
        slots: (axes, groups) int64, which member of a group the axis is; 0 where it is none.
        members: (groups,) int64, number of counted members, 0 for groups that are not scored.
    """

    names: list[str]
    axes: list[tuple[int, ...]]
    vectors: IntArray
    slots: IntArray
    members: IntArray


def counted_axes(source: ScoreSource, skipped: frozenset[str] = frozenset()) -> CountedAxes:
    """What `member_sums` sums; see there."""
    key = ("member_sums", source.frozen, skipped)
    found: CountedAxes | None = source.structure.shared.get(key)
    if found is None:
        found = source.structure.shared[key] = _counted_axes(source, skipped)
    return found


def member_sums(
    source: ScoreSource,
    statistic: Statistic,
    others: list[Tensor] | None = None,
    skipped: frozenset[str] = frozenset(),
) -> FlatStatistics:
    """Sums of a statistic over every unit of every counted member, each tensor read once for all its axes.

    Args:
        source: what there is to read.
        statistic: what is summed, element by element.
        others: the second factor of every tensor of `counted_axes(source, skipped)`, for the statistics of products.
        skipped: names of tensors that do not count, though every group has another that does.

    Returns:
        group name -> (members, units) float64, the first counted member first.

    Raises:
        ScoreError: a group has no counted member.
    """
    counted, structure = counted_axes(source, skipped), source.structure
    tensors = list(map(source.tensors.__getitem__, counted.names))
    sums = source.backend.flat_axis_sums(tensors, counted.axes, others, statistic)
    statistics = _core.gather_units(
        sums, counted.vectors, counted.slots, counted.members, structure.first_unit, structure.ids, structure.starts
    )
    return FlatStatistics(statistics, counted.members, structure)


def _counted_axes(source: ScoreSource, skipped: frozenset[str]) -> CountedAxes:
    structure = source.structure
    groups = structure.traced.groups
    counted = {
        index: tuple(m for m in counted_members(group, source) if m.tensor not in skipped)
        for index, group in enumerate(groups)
        if group.name not in source.frozen
    }
    axes: dict[str, set[int]] = {}
    for members in counted.values():
        for member in members:
            axes.setdefault(member.tensor, set()).add(member.axis)
    ordered = {name: tuple(sorted(used)) for name, used in axes.items()}
    order = {(name, axis): i for i, (name, axis) in enumerate((n, a) for n, used in ordered.items() for a in used)}
    slots = np.zeros((len(order), len(groups)), dtype=np.int64)
    members_of = np.zeros(len(groups), dtype=np.int64)
    for index, members in counted.items():
        members_of[index] = len(members)
        for slot, member in enumerate(members):
            slots[order[member.tensor, member.axis], index] = slot
    vectors = np.array([dict(structure.of_axis[name])[axis] for name, axis in order], dtype=np.int64)
    return CountedAxes(list(ordered), list(ordered.values()), vectors, slots, members_of)
