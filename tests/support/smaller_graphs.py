"""Graphs and structures without some units, computed from the definition: the reference for `Structure.pruned`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from gsprune.arrays import IntArray
from gsprune.tracing.graph import Graph, Group, Queries
from gsprune.tracing.structure import Structure

__all__ = ["pruned_graph", "unit_mask"]


def unit_mask(structure: Structure, removed_units: Mapping[str, IntArray]) -> npt.NDArray[np.bool_]:
    """(num_units,) bool, False for the units to remove, given per group name."""
    keep = np.ones(structure.num_units, dtype=bool)
    for group, first in zip(structure.traced.groups, structure.first_unit.tolist(), strict=False):
        units = removed_units.get(group.name)
        if units is not None:
            keep[units + first] = False
    return keep


def pruned_graph(graph: Graph, removed_units: Mapping[str, IntArray]) -> Graph:
    """The graph of a network after these units (group name -> sorted int64 indices) were removed."""
    removed = graph.removed(removed_units)
    shapes = dict(graph.shapes)
    for tensor, axes in removed.items():
        shape = list(shapes[tensor])
        for axis, positions in axes.items():
            shape[axis] -= len(positions)
        shapes[tensor] = tuple(shape)
    groups = tuple(_pruned_group(group, removed_units.get(group.name), removed) for group in graph.groups)
    queries = tuple(_pruned_queries(entry, removed.get(entry.tensor, {}).get(entry.axis)) for entry in graph.queries)
    return replace(graph, groups=groups, shapes=shapes, queries=queries)


def _pruned_queries(queries: Queries, removed: IntArray | None) -> Queries:
    """`queries` after `removed` positions are gone: the rest is renumbered."""
    if removed is None:
        return queries
    kept = np.setdiff1d(queries.rows, removed)
    return replace(queries, rows=kept - np.searchsorted(removed, kept))


def _pruned_group(group: Group, units: IntArray | None, removed: Mapping[str, Mapping[int, IntArray]]) -> Group:
    """`group` after `removed`: positions of other groups on shared axes shift too, so all members are renumbered."""
    touched = any(member.axis in removed.get(member.tensor, {}) for member in group.members)
    if not touched:
        return group
    keep = np.ones(group.num_units, dtype=bool)
    if units is not None:
        keep[units] = False
    renumbered = np.full(group.num_units + 1, -1, dtype=np.int64)  # the last entry answers for unit -1
    renumbered[:-1][keep] = np.arange(int(keep.sum()))
    members = []
    for member in group.members:
        positions = removed.get(member.tensor, {}).get(member.axis)
        old = member.units if positions is None else np.delete(member.units, positions)
        members.append(replace(member, units=renumbered[old]))
    return replace(group, num_units=int(keep.sum()), members=tuple(members))
