"""A graph as a table for people."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from gsprune.checks import counted, listed

if TYPE_CHECKING:
    from gsprune.tracing.graph import Graph, Group

__all__ = ["graph_table"]

# More names are only counted: the residual stream of a large network has a hundred layers.
_MAX_NAMES = 4


def graph_table(graph: Graph) -> str:
    """Groups with their widths and layers, then what is protected and why, then the example."""
    rows = [("group", "width", "output of", "input of")]
    rows += [(g.name, _width(g), _names(g.layers("out")), _names(g.layers("in"))) for g in graph.groups]
    widths = [max(len(row[column]) for row in rows) for column in range(3)]
    lines = [
        f"{name:<{widths[0]}}  {width:>{widths[1]}}  {out:<{widths[2]}}  {taken}".rstrip()
        for name, width, out, taken in rows
    ]
    lines += [
        f"protected: {counted(protected.channels, 'channel')} of {_names(protected.names)}: {protected.reason}"
        for protected in graph.protected
    ]
    lines += [f"copy: {copy} loses the channels that {original} loses" for copy, original in graph.copies.items()]
    shapes = ", ".join(map(str, graph.example_shapes))
    lines.append(f"example {graph.example_origin}: {shapes}; {graph.macs():,.0f} MACs")
    return "\n".join(lines)


def _width(group: Group) -> str:
    return str(group.width) if group.width_per_unit == 1 else f"{group.num_units} x {group.width_per_unit}"


def _names(names: Iterable[str]) -> str:
    return listed(names, _MAX_NAMES)
