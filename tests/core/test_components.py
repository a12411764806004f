from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gsprune import _core


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
    assert _core.units.connected_components(num_nodes, a, b).tolist() == _by_search(num_nodes, edges)


def test_a_long_chain_is_one_component() -> None:
    nodes = np.arange(100_000)
    assert not _core.units.connected_components(100_000, nodes[1:].copy(), nodes[:-1].copy()).any()
    assert not _core.units.connected_components(100_000, nodes[:0:-1].copy(), nodes[-2::-1].copy()).any()


def test_bad_edges_are_refused_by_name() -> None:
    ok = np.zeros(1, dtype=np.int64)
    with pytest.raises(ValueError, match=r"`b\[0\]` must lie in \[0, num_nodes=3\), got 3"):
        _core.units.connected_components(3, ok, ok + 3)
    with pytest.raises(ValueError, match=r"`a\[0\]` must lie in \[0, num_nodes=0\), got 0"):
        _core.units.connected_components(0, ok, ok)
    with pytest.raises(ValueError, match="same length, got 1 and 2"):
        _core.units.connected_components(3, ok, np.zeros(2, dtype=np.int64))
    with pytest.raises(ValueError, match="`num_nodes` must be >= 0, got -1"):
        _core.units.connected_components(-1, ok[:0], ok[:0])
    with pytest.raises(ValueError, match="`a` must have one dimension, got 2"):
        _core.units.connected_components(3, np.zeros((1, 1), dtype=np.int64), ok)
    with pytest.raises(TypeError):
        _core.units.connected_components(3, ok.astype(np.float64), ok)  # type: ignore[arg-type]
