"""Parameters and MACs as an exact function of the groups' units, without running the network.

A tensor's size along an axis is a constant plus, for every group on that axis, the positions of the kept units.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from gsprune.tracing.graph import Graph

__all__ = ["CostModel", "dense_shapes"]


@dataclass(frozen=True, slots=True)
class CostModel:
    """Σ over tensors of factor * numel, with the sizes of the axes linear in the units of the groups.

    Attributes:
        factors: (tensors,) float64, the cost of one element. With whole numbers the sums are exact below 2**53.
        constants: (axes,) float64, the size of each axis without any group's units, for the axes of all tensors.
        positions: (axes, groups) float64, the number of positions of one unit of a group on an axis.
        starts: (tensors,) int64, the first axis of every tensor.
    """

    factors: npt.NDArray[np.float64]
    constants: npt.NDArray[np.float64]
    positions: npt.NDArray[np.float64]
    starts: npt.NDArray[np.int64]

    @classmethod
    def of_params(cls, graph: Graph, parameters: Iterable[str]) -> CostModel:
        """The number of parameters. Tied ones count once; `parameters` may have all of their names."""
        names = {graph.aliases.get(name, name) for name in parameters}
        return cls._build(graph, {name: 1.0 for name in graph.shapes if name in names})

    @classmethod
    def of_macs(cls, graph: Graph) -> CostModel:
        """The MACs of one example."""
        return cls._build(graph, graph.weight_uses)

    @classmethod
    def _build(cls, graph: Graph, factors: Mapping[str, float]) -> CostModel:
        # A tensor without axes counts as one of size 1, so that every tensor has a segment.
        shapes = {name: graph.shapes[name] or (1,) for name in factors}
        starts = dict(
            zip(shapes, np.cumsum([0, *(len(shape) for shape in shapes.values())])[:-1].tolist(), strict=True)
        )
        sizes = np.array([size for shape in shapes.values() for size in shape], dtype=np.float64)
        positions = np.zeros((len(sizes), len(graph.groups)))
        units = np.array([group.num_units for group in graph.groups], dtype=np.float64)
        for column, group in enumerate(graph.groups):
            for member in group.members:
                if member.tensor in starts and group.num_units > 0:
                    owned = float(np.count_nonzero(member.units >= 0))
                    positions[starts[member.tensor] + member.axis, column] += owned / group.num_units
        return cls(
            factors=np.array(list(factors.values())),
            constants=sizes - positions @ units,
            positions=positions,
            starts=np.array(list(starts.values()), dtype=np.int64),
        )

    def __call__(self, units: npt.NDArray[np.int64]) -> float:
        """The cost of the network with these units, (groups,) int64 in the graph's order of groups."""
        if len(self.factors) == 0:
            return 0.0
        sizes = self.constants + self.positions @ units.astype(np.float64)
        return float(self.factors @ np.multiply.reduceat(sizes, self.starts))


def dense_shapes(graph: Graph, initial_widths: Mapping[str, int]) -> dict[str, tuple[int, ...]]:
    """Shapes of all tensors with every group at its first-seen width; the present one if `initial_widths` lacks it."""
    shapes = {name: list(shape) for name, shape in graph.shapes.items()}
    for group in graph.groups:
        removed_units = initial_widths.get(group.name, group.width) // group.width_per_unit - group.num_units
        for member in group.members:
            shapes[member.tensor][member.axis] += (
                removed_units * int(np.count_nonzero(member.units >= 0)) // group.num_units
            )
    return {name: tuple(shape) for name, shape in shapes.items()}
