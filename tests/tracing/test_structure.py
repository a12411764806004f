"""The flat form of a graph says what the graph says, step after step."""

from __future__ import annotations

import pickle

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from random_networks import KINDS, RandomNet, example, networks
from smaller_graphs import pruned_graph, unit_mask

import gsprune
from gsprune.tracing.graph import Graph
from gsprune.tracing.structure import Structure


def described(graph: Graph) -> list[object]:
    """A graph as plain values."""
    groups = [
        (
            g.name,
            g.num_units,
            g.width_per_unit,
            g.kind,
            [(m.tensor, m.axis, m.role, m.units.tolist()) for m in g.members],
        )
        for g in graph.groups
    ]
    return [groups, dict(graph.shapes)]


@given(networks(KINDS), st.lists(st.integers(0, 2**16), min_size=1, max_size=3))
def test_a_structure_shrinks_as_its_graph_does(net: RandomNet, seeds: list[int]) -> None:
    graph = gsprune.trace(net, example(net))
    structure = Structure(graph)
    kept: dict[str, dict[int, np.ndarray]] = {}
    for seed in seeds:
        rng = np.random.default_rng(seed)
        removed = {
            group.name: np.flatnonzero(rng.random(group.num_units) < 0.4)[: group.num_units - 1]
            for group in graph.groups
        }
        gone = graph.removed(removed)
        structure, keeps = structure.pruned(unit_mask(structure, removed))
        for tensor, axes in structure.of_axis.items():
            for axis, vector in axes:
                length = graph.shapes[tensor][axis]
                expected = np.setdiff1d(np.arange(length), gone.get(tensor, {}).get(axis, []))
                keep = keeps[vector]
                assert (np.arange(length) if keep is None else keep).tolist() == expected.tolist()
                before = kept.get(tensor, {}).get(axis, np.arange(length))
                kept.setdefault(tensor, {})[axis] = before[expected]
        graph = pruned_graph(graph, removed)
        assert described(structure.graph) == described(graph)
    dense = {t: {a: i.tolist() for a, i in axes.items()} for t, axes in structure.kept().items()}
    assert all(kept[t][a].tolist() == index for t, axes in dense.items() for a, index in axes.items())
    assert described(pickle.loads(pickle.dumps(structure)).graph) == described(graph)
