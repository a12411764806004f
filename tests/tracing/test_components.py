"""Connected components against a search."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from gsprune.tracing.components import connected_components


def _by_search(num_nodes: int, edges: list[tuple[int, int]]) -> list[int]:
    """Smallest node reachable from each, by repeated relaxation."""
    labels = list(range(num_nodes))
    changed = True
    while changed:
        changed = False
        for a, b in edges:
            low = min(labels[a], labels[b])
            changed |= labels[a] != low or labels[b] != low
            labels[a] = labels[b] = low
    return labels


@given(st.integers(1, 40), st.data())
def test_every_node_is_labelled_with_the_smallest_of_its_component(num_nodes: int, data: st.DataObject) -> None:
    node = st.integers(0, num_nodes - 1)
    edges = data.draw(st.lists(st.tuples(node, node), max_size=60))
    a = np.array([edge[0] for edge in edges], dtype=np.int64)
    b = np.array([edge[1] for edge in edges], dtype=np.int64)
    assert connected_components(num_nodes, a, b).tolist() == _by_search(num_nodes, edges)


def test_a_long_chain_is_one_component() -> None:
    nodes = np.arange(100_000)
    assert not connected_components(100_000, nodes[1:], nodes[:-1]).any()
    assert not connected_components(100_000, nodes[:0:-1], nodes[-2::-1]).any()


def test_a_path_through_shuffled_nodes_is_one_component() -> None:
    nodes = np.random.default_rng(0).permutation(10_000)
    assert not connected_components(10_000, nodes[1:], nodes[:-1]).any()
