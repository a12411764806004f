"""`print(graph)` is a table."""

from __future__ import annotations

import dataclasses

from hand_made import small_graph, small_net

from gsprune.tracing.graph import Protected


def test_a_line_per_group_then_what_is_protected_then_the_example() -> None:
    graph = dataclasses.replace(
        small_graph(small_net()), protected=(Protected("output of the network", ("a", "b", "c", "d", "e", "f"), 5),)
    )
    assert str(graph).splitlines() == [
        "group  width  output of  input of",
        "0          6  0, 1       3",
        "3          4  3          6",
        "protected: 5 channels of a, b, c, d and 2 more: output of the network",
        "example given: (1, 3, 8, 8); 9,608 MACs",
    ]


def test_a_unit_of_several_channels_shows_both_numbers() -> None:
    graph = small_graph(small_net())
    graph = dataclasses.replace(graph, groups=(dataclasses.replace(graph.groups[0], width_per_unit=3),))
    assert str(graph).splitlines()[1].split()[:4] == ["0", "6", "x", "3"]
