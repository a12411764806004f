"""The present groups of a network, as a few flat arrays that a pruning step can update fast.

Many axes are cut in the same way (a convolution's outputs, its bias, its norm, the next layer's inputs). They share one
index *vector*. The present `Graph` and the kept indices in the traced numbering are computed on request.
"""

from __future__ import annotations

from copy import copy
from dataclasses import replace
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
from torch import Tensor

from gsprune.arrays import BoolArray, IntArray
from gsprune.tracing.graph import Graph, Group, Member
from gsprune.tracing.trail import Numbers, Reading, Scale, Units

__all__ = ["ExpectedOperation", "Structure"]


class ExpectedOperation(NamedTuple):
    """The sizes and numbers of one operation in the smaller network, as predicted from the trace.

    Attributes:
        op: its name.
        outputs: per output tensor ((axis, size before the step, size after it), ...) of the labelled axes; None if
            unknown.
        numbers: arguments that must have a value, the scale of attention among them.
        reading: the number or the sizes that it computed from values in the trace.
        samples: per output tensor a few values in the masked dense network, in float64; None if they may differ. Empty
            if they are not known.
    """

    op: str
    outputs: tuple[tuple[tuple[int, int, int], ...] | None, ...]
    numbers: Numbers
    reading: Reading
    samples: tuple[Tensor | None, ...] = ()


class Structure:
    """The groups of a network at one moment.

    Attributes:
        traced: the graph at the time of the trace. Pruning does not change its names, roles and reasons.
        num_units: number of present units of all groups.
        first_unit: (groups + 1,) int64, the first unit of each group in the numbering over all groups.
        ids: (positions,) int64, the concatenated index vectors: the unit of every position, `num_units` for none.
        starts: (vectors + 1,) int64, the start of each vector in `ids`.
        of_axis: tensor -> ((axis, vector), ...), for every axis that belongs to a group.
        cuts: the distinct values of `of_axis`. Tensors with the same value are cut in the same way.
        cut_of: tensor -> index into `cuts`.
        cache: values that callers derive from the traced graph, which never changes.
    """

    def __init__(self, graph: Graph) -> None:
        """The structure of a freshly traced network."""
        self.traced = graph
        self.first_unit = np.concatenate([[0], np.cumsum([group.num_units for group in graph.groups])]).astype(np.int64)
        self.num_units = int(self.first_unit[-1])
        axes: dict[tuple[str, int], IntArray] = {}
        for group, first, _ in self.spans():
            for member in group.members:
                key = (member.tensor, member.axis)
                if key not in axes:
                    axes[key] = np.full(len(member.units), self.num_units, dtype=np.int64)
                owned = member.units >= 0
                axes[key][owned] = member.units[owned] + first
        index_of: dict[bytes, int] = {}
        vectors: list[IntArray] = []
        self.of_axis: dict[str, tuple[tuple[int, int], ...]] = {}
        for (tensor, axis), ids in sorted(axes.items()):
            index = index_of.setdefault(ids.tobytes(), len(vectors))
            if index == len(vectors):
                vectors.append(ids)
            self.of_axis[tensor] = (*self.of_axis.get(tensor, ()), (axis, index))
        self.cuts = tuple(dict.fromkeys(self.of_axis.values()))
        cut_index = {axes: index for index, axes in enumerate(self.cuts)}
        self.cut_of = {tensor: cut_index[axes] for tensor, axes in self.of_axis.items()}
        self.ids: IntArray = np.concatenate([np.zeros(0, np.int64), *vectors])
        self.starts: IntArray = np.concatenate([[0], np.cumsum([len(ids) for ids in vectors])]).astype(np.int64)
        self.cache: dict[Any, Any] = {}
        self._traced_ids, self._traced_starts = self.ids, self.starts
        self._alive: BoolArray = np.ones(self.num_units, dtype=bool)  # of the traced units

    def __getstate__(self) -> dict[str, Any]:
        """Leave out cached values."""
        return {name: {} if name == "cache" else value for name, value in self.__dict__.items() if name != "graph"}

    @cached_property
    def graph(self) -> Graph:
        """The graph of the present network."""
        traced = self.traced
        if self._alive.all():
            return traced
        bounds, lengths = self.starts.tolist(), self.lengths()
        shapes = dict(traced.shapes)
        for tensor, axes in self.of_axis.items():
            shape = list(shapes[tensor])
            for axis, vector in axes:
                shape[axis] = lengths[vector]
            shapes[tensor] = tuple(shape)
        vector_of = {(tensor, axis): vector for tensor, axes in self.of_axis.items() for axis, vector in axes}
        groups = []
        for group, first, last in self.spans():
            units_of: dict[int, IntArray] = {}
            members = []
            for member in group.members:
                vector = vector_of[member.tensor, member.axis]
                units = units_of.get(vector)
                if units is None:
                    ids = self.ids[bounds[vector] : bounds[vector + 1]]
                    units = units_of[vector] = np.where((ids >= first) & (ids < last), ids - first, -1)
                members.append(Member(member.tensor, member.axis, units, member.role))
            groups.append(Group(group.name, last - first, group.width_per_unit, tuple(members), group.kind))
        return replace(traced, groups=tuple(groups), shapes=shapes)

    def spans(self) -> list[tuple[Group, int, int]]:
        """(group as traced, its first present unit, the unit after its last one) of all groups."""
        bounds = self.first_unit.tolist()
        return list(zip(self.traced.groups, bounds, bounds[1:], strict=False))

    def units_of_groups(self) -> list[int]:
        """Number of present units of each group."""
        counts: list[int] = (self.first_unit[1:] - self.first_unit[:-1]).tolist()
        return counts

    def lengths(self) -> list[int]:
        """Present length of every vector."""
        lengths: list[int] = (self.starts[1:] - self.starts[:-1]).tolist()
        return lengths

    def pruned(self, keep: BoolArray) -> tuple[Structure, list[IntArray | None]]:
        """The structure with the units to `keep`, and the sorted kept positions of each vector (None for all)."""
        smaller = copy(self)
        smaller.cache = self.cache
        smaller._alive = self._alive.copy()
        smaller._alive[self._alive] = keep
        number = np.concatenate([[0], np.cumsum(keep)])  # the number of kept units before a unit
        smaller.first_unit, smaller.num_units = number[self.first_unit], int(number[-1])
        kept = np.flatnonzero(np.append(keep, True)[self.ids])  # positions without a unit stay
        smaller.ids, smaller.starts = number[self.ids[kept]], np.searchsorted(kept, self.starts)
        before, after = self.starts.tolist(), smaller.starts.tolist()
        keeps = [
            None if last - first == end - start else kept[first:last] - start
            for start, end, first, last in zip(before, before[1:], after, after[1:], strict=False)
        ]
        return smaller, keeps

    def kept_positions(self, before: Structure, units: Units) -> tuple[IntArray, int]:
        """Positions of an axis of an earlier structure that this one keeps, and the axis's length there.

        `units` are the traced ones along the axis.
        """
        present = units[np.append(before._alive, True)[units]]
        return np.flatnonzero(np.append(self._alive, True)[present]), len(present)

    def expected_operations(self, before: Structure, *, training: bool = False) -> list[ExpectedOperation]:
        """The operations of the present network in the order of the trace, if its code uses no fixed sizes.

        With `training`, those of the forward in training mode.
        """
        alive, present = np.append(self._alive, True), np.append(before._alive, True)
        lengths_of: dict[int, tuple[int, int]] = {}

        def lengths(units: Units) -> tuple[int, int]:
            if id(units) not in lengths_of:
                lengths_of[id(units)] = int(np.count_nonzero(present[units])), int(np.count_nonzero(alive[units]))
            return lengths_of[id(units)]

        def sizes(axes: tuple[tuple[int, Units], ...] | None) -> tuple[tuple[int, int, int], ...] | None:
            return None if axes is None else tuple((axis, *lengths(units)) for axis, units in axes)

        def scaled(scale: Scale) -> float:
            kept_share = float(np.count_nonzero(alive[scale.labels])) / len(scale.labels)
            return float(scale.value * kept_share ** (-0.5 * scale.exponent))

        return [
            ExpectedOperation(
                each.op,
                tuple(map(sizes, each.outputs)),
                each.numbers if each.scale is None else (*each.numbers, (each.scale.place, scaled(each.scale))),
                each.reading,
            )
            for each in (self.traced.training_trail if training else self.traced.trail)
        ]

    def kept(self) -> dict[str, dict[int, IntArray]]:
        """Tensor -> {axis: sorted positions kept since the trace}; only axes that lost positions."""
        extended = np.append(self._alive, True)
        kept: dict[str, dict[int, IntArray]] = {}
        for tensor, axes in self.of_axis.items():
            for axis, vector in axes:
                alive = extended[self._traced_ids[self._traced_starts[vector] : self._traced_starts[vector + 1]]]
                if not alive.all():
                    kept.setdefault(tensor, {})[axis] = np.flatnonzero(alive)
        return kept
