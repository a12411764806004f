"""Scores and selections by the name of the group, and sums by job, for tests that look at one of them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
from torch import Tensor

from gsprune.backends import Backend
from gsprune.importance import Importance, ScoreSource
from gsprune.selection import Selection, select_units
from gsprune.tracing.graph import Graph
from gsprune.tracing.structure import Structure

# The definition: from (members, units) to (units,).
REDUCE: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "mean": lambda statistics: np.add.reduce(statistics, axis=0) / len(statistics),
    "sum": lambda statistics: statistics.sum(axis=0),
    "max": lambda statistics: statistics.max(axis=0),
    "prod": lambda statistics: statistics.prod(axis=0),
    "first": lambda statistics: statistics[0],
}


class SumJob(NamedTuple):
    tensor: Tensor
    axes: tuple[int, ...]
    other: Tensor | None = None


def axis_sums(backend: Backend, jobs: list[SumJob], statistic: str) -> list[tuple[np.ndarray, ...]]:
    """Per job one vector per axis."""
    tensors, axes, others = ([job[i] for job in jobs] for i in range(3))
    flat = backend.axis_sums(tensors, axes, others, statistic)
    vectors = iter(np.split(flat, np.cumsum([job.tensor.shape[axis] for job in jobs for axis in job.axes])[:-1]))
    return [tuple(next(vectors) for _ in job.axes) for job in jobs]


def select_one(backend: Backend, scores: np.ndarray, keep: int) -> np.ndarray:
    """Sorted indices of one group's kept units."""
    return np.flatnonzero(backend.select_groups(scores, np.array([0, len(scores)]), np.array([keep])))


def group_scores(
    importance: Importance,
    graph: Graph | Structure,
    tensors: Mapping[str, Tensor],
    backend: Backend,
    *,
    frozen: Iterable[str] = (),
    **options: Any,
) -> dict[str, np.ndarray]:
    """Group name -> (num_units,) float32."""
    structure = Structure(graph) if isinstance(graph, Graph) else graph
    scores = importance.unit_scores(ScoreSource(structure, frozenset(frozen), tensors, backend, **options))
    return {
        group.name: scores[first:last]
        for group, (first, last) in zip(structure.traced.groups, pairwise(structure.first_unit.tolist()), strict=True)
        if group.name not in frozen and first < last
    }


def select(
    graph: Graph,
    scores: Mapping[str, np.ndarray],
    initial_widths: Mapping[str, int],
    sparsity: Any,
    *,
    backend: Backend,
    frozen: Iterable[str] = (),
    parameters: Iterable[str] = (),
    **options: Any,
) -> dict[str, np.ndarray]:
    """Group name -> sorted removed units, of groups that lose some."""
    structure = Structure(graph)
    bounds = list(pairwise(structure.first_unit.tolist()))
    flat = np.zeros(structure.num_units, dtype=np.float32)
    for group, (first, last) in zip(graph.groups, bounds, strict=True):
        flat[first:last] = scores.get(group.name, 0.0)
    request = Selection(sparsity, parameters=tuple(parameters), **options)
    gone = ~select_units(structure, flat, initial_widths, request, backend=backend, frozen=frozenset(frozen))
    removed = {group.name: np.flatnonzero(gone[a:b]) for group, (a, b) in zip(graph.groups, bounds, strict=True)}
    return {name: units for name, units in removed.items() if len(units)}
