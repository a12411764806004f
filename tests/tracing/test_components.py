"""Connected components against a search."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

import gsprune
from gsprune.tracing.components import connected_components, first_indices


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


def test_the_first_of_repeated_numbers_counts() -> None:
    assert first_indices(4, np.array([2, 0, 2, 0, 2])).tolist() == [1, 5, 0, 5]


def test_outputs_stay_protected_if_splits_cannot_be_settled(monkeypatch: pytest.MonkeyPatch) -> None:
    class Parts(nn.Module):
        """Two parts of one projection, and a sum over the last layer's channels."""

        def __init__(self) -> None:
            super().__init__()
            self.project = nn.Linear(4, 8)
            self.last = nn.Linear(8, 8)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            a, b = self.project(x).chunk(2, -1)
            return self.last(torch.cat([a.relu(), b.tanh()], -1)).sum()

    monkeypatch.setattr("gsprune.tracing.components._MAX_ROUNDS", 0)
    graph = gsprune.trace(Parts(), torch.randn(2, 4))
    protected = {name: entry.reason for entry in graph.protected for name in entry.names}
    assert protected["project"] == "splits that cannot be settled"
    assert protected["last"].startswith("output of the network")
