"""Statistics of all groups in one array, and sums over the elements of every unit in every member.

The backend sums along axes, and the sums of all positions are added to their units: one call each for all groups.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from torch import Tensor

from gsprune.arrays import Float64Array, IntArray
from gsprune.errors import ScoreError
from gsprune.importance.criterion import Criterion, ScoreSource
from gsprune.importance.weights import scored_members
from gsprune.tracing.structure import Structure

__all__ = ["REDUCTIONS", "FlatStatistics", "member_sums", "summed_axes"]

REDUCTIONS: Mapping[str, Callable[[Float64Array], Float64Array]] = {
    "mean": lambda statistics: np.add.reduce(statistics) / len(statistics),
    "sum": np.add.reduce,
    "max": np.maximum.reduce,
    "prod": np.multiply.reduce,
    "first": lambda statistics: statistics[0],
}
"""Reductions of the (members, units) statistics of a group to one number per unit; the first member is the root."""


class FlatStatistics(Mapping[str, Float64Array]):
    """Group name -> (rows, units) float64, stored as one array. Groups without statistics are omitted.

    Args:
        values: the (rows, units) statistics of all groups, concatenated.
        rows: (groups,) int64, the number of rows of each group of the structure; 0 if it has no statistics.
        structure: the groups of the network.
    """

    def __init__(self, values: Float64Array, rows: IntArray, structure: Structure) -> None:
        self.values_of_all = values
        self.rows = rows
        self.structure = structure

    @classmethod
    def of(cls, statistics: Mapping[str, Float64Array], source: ScoreSource, criterion: Criterion) -> FlatStatistics:
        """The result of `criterion.statistics` in one array.

        Raises:
            ScoreError: a group is missing, or its statistics are no real numbers of shape (rows, units).
        """
        if isinstance(statistics, cls):
            return statistics
        name = type(criterion).__name__
        if not isinstance(statistics, Mapping):
            raise ScoreError(
                f"{name}.statistics() must return a mapping from group names to arrays, got {type(statistics).__name__}"
            )
        structure = source.structure
        values = [np.zeros(0)]
        rows = np.zeros(len(structure.traced.groups), dtype=np.int64)
        for index, (group, units) in enumerate(zip(structure.traced.groups, structure.units_of_groups(), strict=True)):
            if group.name in source.frozen or units == 0:
                continue
            if group.name not in statistics:
                raise ScoreError(
                    f"{name}.statistics() omitted group {group.name!r}: it must return statistics "
                    "for every group of `source.groups`"
                )
            found = _as_array(statistics[group.name], name, group.name)
            if found.ndim != 2 or found.shape[1] != units or found.shape[0] == 0:
                raise ScoreError(
                    f"{name} must give (members, {units}) statistics for group {group.name!r}, "
                    f"got shape {found.shape}; one score per unit is a single row, (1, {units})"
                )
            rows[index] = len(found)
            values.append(found.ravel())
        return cls(np.concatenate(values), rows, structure)

    def map(self, function: Callable[[Float64Array], Float64Array]) -> FlatStatistics:
        """The statistics with an element-wise function applied."""
        return FlatStatistics(function(self.values_of_all), self.rows, self.structure)

    def reduced(self, reduction: str) -> Float64Array:
        """(units,) float64 over all groups, by one of `REDUCTIONS`; 0 in groups that have no statistics."""
        reduced, reduce = np.zeros(self.structure.num_units), REDUCTIONS[reduction]
        for group, first, last in self.structure.spans():
            if group.name in self._by_group:
                reduced[first:last] = reduce(self._by_group[group.name])
        return reduced

    @cached_property
    def _by_group(self) -> dict[str, Float64Array]:
        by_group: dict[str, Float64Array] = {}
        begin = 0
        for (group, first, last), rows in zip(self.structure.spans(), self.rows.tolist(), strict=True):
            end = begin + rows * (last - first)
            if begin < end:
                by_group[group.name] = self.values_of_all[begin:end].reshape(rows, last - first)
            begin = end
        return by_group

    def __getitem__(self, name: str) -> Float64Array:
        """The statistics of one group."""
        return self._by_group[name]

    def __iter__(self) -> Iterator[str]:
        """Names of the groups that have statistics, in the structure's order."""
        return iter(self._by_group)

    def __len__(self) -> int:
        """The number of groups that have statistics."""
        return len(self._by_group)


@dataclass(frozen=True, slots=True)
class SummedAxes:
    """The axes to sum; they depend only on the trace, not on the present widths.

    Attributes:
        names: the tensors.
        axes: the axes of each tensor.
        vectors: (axes,) int64, the structure's vector of each axis.
        slots: (axes, groups) int64, the row of the axis in each group's statistics; 0 if the axis is not in the group.
        rows: (groups,) int64, the number of scored members; 0 for groups that are not scored.
    """

    names: list[str]
    axes: list[tuple[int, ...]]
    vectors: IntArray
    slots: IntArray
    rows: IntArray


def _as_array(value: Any, criterion: str, group: str) -> Float64Array:
    """The statistics of one group, which a criterion may return as an array, a tensor or nested lists.

    Raises:
        ScoreError: they are no real numbers.
    """
    if isinstance(value, Tensor):
        tensor = value.detach().cpu()
        value = (tensor.double() if tensor.is_floating_point() else tensor).numpy()  # NumPy has no bfloat16
    try:
        array = np.asarray(value)
    except (TypeError, ValueError) as error:
        raise ScoreError(f"{criterion}.statistics() must return an array for group {group!r}: {error}") from error
    if array.dtype.kind not in "fiub":
        raise ScoreError(
            f"{criterion}.statistics() must return real numbers for group {group!r}, got {type(value).__name__} of"
            f" {array.dtype}"
        )
    return array.astype(np.float64, copy=False)


def summed_axes(source: ScoreSource, skipped: frozenset[str] = frozenset()) -> SummedAxes:
    """The axes that `member_sums` sums; cached in the structure."""
    key = ("member_sums", source.frozen, skipped)
    found: SummedAxes | None = source.structure.cache.get(key)
    if found is None:
        found = source.structure.cache[key] = _summed_axes(source, skipped)
    return found


def member_sums(
    source: ScoreSource,
    statistic: str,
    others: list[Tensor] | None = None,
    skipped: frozenset[str] = frozenset(),
) -> FlatStatistics:
    """Sums over every unit in every scored member, the root's first. Each tensor is read once for all its axes.

    `statistic` is the summand (see `Backend.axis_sums`). `others` has the second factor of products, for all tensors of
    `summed_axes(source, skipped)`. Tensors in `skipped` are omitted; every group must have another scored member.

    Raises:
        ScoreError: a group has no member to score.
    """
    summed, structure = summed_axes(source, skipped), source.structure
    tensors = list(map(source.tensors.__getitem__, summed.names))
    sums = source.backend.axis_sums(tensors, summed.axes, others, statistic)
    return FlatStatistics(_added_to_units(sums, summed, structure), summed.rows, structure)


def _added_to_units(sums: Float64Array, summed: SummedAxes, structure: Structure) -> Float64Array:
    """The (rows, units) statistics of all groups: the sums at all positions of a unit, added in their order."""
    widths = structure.first_unit[1:] - structure.first_unit[:-1]
    sizes = summed.rows * widths
    total = int(sizes.sum())
    # Index of an axis' statistics in each group, minus the group's first unit. The sums of positions without a unit
    # and of groups that are not scored go to `total` or beyond.
    origins = np.full((len(summed.vectors), len(widths) + 1), total)
    origins[:, :-1] = np.where(
        summed.rows > 0, np.cumsum(sizes) - sizes + summed.slots * widths - structure.first_unit[:-1], total
    )
    bounds = structure.starts.tolist()
    vectors = [structure.ids[bounds[vector] : bounds[vector + 1]] for vector in summed.vectors.tolist()]
    ids = np.concatenate([np.zeros(0, np.int64), *vectors])
    axes = np.repeat(np.arange(len(vectors)), list(map(len, vectors)))
    group_of = np.repeat(np.arange(len(widths) + 1), np.append(widths, 1))
    index = np.minimum(origins[axes, group_of[ids]] + ids, total)
    return np.asarray(np.bincount(index, sums, total + 1)[:total], np.float64)


def _summed_axes(source: ScoreSource, skipped: frozenset[str]) -> SummedAxes:
    structure = source.structure
    groups = structure.traced.groups
    scored = {
        index: tuple(m for m in scored_members(group, source) if m.tensor not in skipped)
        for index, group in enumerate(groups)
        if group.name not in source.frozen
    }
    axes_of: dict[str, set[int]] = {}
    for members in scored.values():
        for member in members:
            axes_of.setdefault(member.tensor, set()).add(member.axis)
    ordered = {name: tuple(sorted(axes)) for name, axes in axes_of.items()}
    position = {axis: index for index, axis in enumerate((name, axis) for name in ordered for axis in ordered[name])}
    slots = np.zeros((len(position), len(groups)), dtype=np.int64)
    rows = np.zeros(len(groups), dtype=np.int64)
    for index, members in scored.items():
        rows[index] = len(members)
        for slot, member in enumerate(members):
            slots[position[member.tensor, member.axis], index] = slot
    vectors = np.array([dict(structure.of_axis[name])[axis] for name, axis in position], dtype=np.int64)
    return SummedAxes(list(ordered), list(ordered.values()), vectors, slots, rows)
