"""A network's groups as they shrink: the traced graph, which of its units are alive, and flat index vectors.

A step at every optimizer step must not cost more than the memory it moves, so what a step needs is kept as a few flat
arrays: many axes are cut alike (a convolution's outputs, its bias, its norm, the next layer's inputs), and share one
*vector*. Everything else (the present `Graph`, kept indices in the traced numbering) is derived when somebody asks.
"""

from __future__ import annotations

from dataclasses import replace
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from gsprune import _core
from gsprune.tracing.graph import Graph, Group, IntArray, Member
from gsprune.tracing.trail import Numbers, Scale, Units

__all__ = ["ExpectedOperation", "Structure"]

BoolArray = npt.NDArray[np.bool_]


class ExpectedOperation(NamedTuple):
    """Sizes that one operation must make.

    Attributes:
        op: its name.
        outputs: per output tensor ((axis, size before the step, size after it), ...) of the labelled axes; None where
            unknown.
        scale: the number that it must scale by; None where any will do.
        numbers: (position, value) of arguments that must be the same as in the trace.
    """

    op: str
    outputs: tuple[tuple[tuple[int, int, int], ...] | None, ...]
    scale: float | None = None
    numbers: Numbers = ()


class _Vectors:
    """The distinct index vectors of a traced graph: what never changes.

    Attributes:
        graph: the graph as traced.
        first_unit: (groups + 1,) where the units of each group begin in the numbering over all groups.
        of_axis: tensor -> ((axis, vector), ...), for every axis that some group ties.
        ids: the vectors one after the other: per position the unit, or `num_units` where it is nobody's.
        starts: (vectors + 1,) where each begins.
        cuts, cut_of, shared: see `Structure`.
    """

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.first_unit = np.concatenate([[0], np.cumsum([group.num_units for group in graph.groups])]).astype(np.int64)
        self.num_units = int(self.first_unit[-1])
        axes: dict[tuple[str, int], IntArray] = {}
        for first, group in zip(self.first_unit.tolist(), graph.groups, strict=False):
            for member in group.members:
                key = (member.tensor, member.axis)
                if key not in axes:
                    axes[key] = np.full(len(member.units), self.num_units, dtype=np.int64)
                owned = member.units >= 0
                axes[key][owned] = member.units[owned] + first
        known: dict[bytes, int] = {}
        vectors: list[IntArray] = []
        self.of_axis: dict[str, tuple[tuple[int, int], ...]] = {}
        for (tensor, axis), ids in sorted(axes.items()):
            index = known.setdefault(ids.tobytes(), len(vectors))
            if index == len(vectors):
                vectors.append(ids)
            self.of_axis[tensor] = (*self.of_axis.get(tensor, ()), (axis, index))
        self.cuts = tuple(dict.fromkeys(self.of_axis.values()))
        number = {axes: index for index, axes in enumerate(self.cuts)}
        self.cut_of = {tensor: number[axes] for tensor, axes in self.of_axis.items()}
        self.cache: dict[Any, Any] = {}
        self.ids: IntArray = np.concatenate([np.zeros(0, np.int64), *vectors])
        self.starts: IntArray = np.concatenate([[0], np.cumsum([len(ids) for ids in vectors])]).astype(np.int64)

    def __getstate__(self) -> dict[str, Any]:
        """A pickle goes without what can be derived again."""
        return {**self.__dict__, "cache": {}}


class Structure:
    """The groups of a network at one moment.

    Attributes:
        num_units: units alive, of all groups.
        first_unit: (groups + 1,) int64, where the units of each group begin.
        ids: (positions,) int64, the distinct index vectors one after the other; `num_units` where no unit is.
        starts: (vectors + 1,) int64, where each vector begins.
        of_axis: tensor -> ((axis, vector), ...).
        cuts: the distinct values of `of_axis`: tensors that are cut alike share one.
        cut_of: tensor -> index into `cuts`.
        shared: for others to keep what they derive from the traced graph, which never changes.
    """

    def __init__(
        self, vectors: _Vectors, alive: BoolArray, first_unit: IntArray, ids: IntArray, starts: IntArray
    ) -> None:
        self._vectors = vectors
        self._alive = alive
        self.first_unit = first_unit
        self.num_units = int(first_unit[-1])
        self.ids = ids
        self.starts = starts
        self.of_axis = vectors.of_axis
        self.cuts = vectors.cuts
        self.cut_of = vectors.cut_of
        self.cache = vectors.cache

    @classmethod
    def of(cls, graph: Graph) -> Structure:
        """The structure of a network as just traced."""
        vectors = _Vectors(graph)
        alive = np.ones(vectors.num_units, dtype=bool)
        return cls(vectors, alive, vectors.first_unit, vectors.ids, vectors.starts)

    @property
    def traced(self) -> Graph:
        """The graph as it was traced: names, roles and reasons are the same ever since."""
        return self._vectors.graph

    @cached_property
    def graph(self) -> Graph:
        """The graph of the network as it is now."""
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
        firsts = self.first_unit.tolist()
        for group, first, last in zip(traced.groups, firsts, firsts[1:], strict=False):
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

    def units_of_groups(self) -> list[int]:
        """Units alive per group."""
        counts: list[int] = (self.first_unit[1:] - self.first_unit[:-1]).tolist()
        return counts

    def lengths(self) -> list[int]:
        """Present length of every vector."""
        lengths: list[int] = (self.starts[1:] - self.starts[:-1]).tolist()
        return lengths

    def pruned(self, keep: BoolArray) -> tuple[Structure, list[IntArray | None]]:
        """The structure without some units.

        Args:
            keep: (num_units,) bool.

        Returns:
            the structure afterwards, and per vector the sorted kept positions, None where all are kept.
        """
        alive, first_unit, ids, starts, keeps = _core.units.shrink_units(
            keep, self._alive, self.first_unit, self.ids, self.starts
        )
        return Structure(self._vectors, alive, first_unit, ids, starts), keeps

    def expected(self, before: Structure) -> list[ExpectedOperation]:
        """What the network makes by now on its way, if every size in its code follows; in the order of the trace.

        Args:
            before: the structure before the step.
        """
        alive, present = np.append(self._alive, True), np.append(before._alive, True)
        known: dict[int, tuple[int, int]] = {}

        def lengths(units: Units) -> tuple[int, int]:
            if id(units) not in known:
                known[id(units)] = int(np.count_nonzero(present[units])), int(np.count_nonzero(alive[units]))
            return known[id(units)]

        def sizes(axes: tuple[tuple[int, Units], ...] | None) -> tuple[tuple[int, int, int], ...] | None:
            return None if axes is None else tuple((axis, *lengths(units)) for axis, units in axes)

        def scaled(scale: Scale | None) -> float | None:
            if scale is None:
                return None
            left = float(np.count_nonzero(alive[scale.labels])) / len(scale.labels)
            return float(scale.value * left ** (-0.5 * scale.exponent))

        return [ExpectedOperation(p.op, tuple(map(sizes, p.outputs)), scaled(p.scale), p.numbers) for p in self.traced.trail]

    def kept(self) -> dict[str, dict[int, IntArray]]:
        """Tensor -> {axis: positions kept since the trace}, sorted; only axes that lost something."""
        vectors = self._vectors
        extended = np.append(self._alive, True)
        kept: dict[str, dict[int, IntArray]] = {}
        for tensor, axes in vectors.of_axis.items():
            for axis, vector in axes:
                alive = extended[vectors.ids[vectors.starts[vector] : vectors.starts[vector + 1]]]
                if not alive.all():
                    kept.setdefault(tensor, {})[axis] = np.flatnonzero(alive)
        return kept
