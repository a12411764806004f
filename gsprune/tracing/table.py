"""A graph as a table for people."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from gsprune.checks import counted

if TYPE_CHECKING:
    from gsprune.tracing.graph import Graph, Group

__all__ = ["graph_table"]

# Names beyond these are counted: the residual stream of a large network runs through a hundred layers.
_MOST_NAMES = 4


def graph_table(graph: Graph) -> str:
    """Groups with their widths and layers, then what is protected and why, then the example."""
    rows = [("group", "width", "layers that put it out", "layers that take it in")]
    rows += [(group.name, _width(group), _layers(group, "out"), _layers(group, "in")) for group in graph.groups]
    widths = [max(len(row[column]) for row in rows) for column in range(3)]
    lines = [
        f"{name:<{widths[0]}}  {width:>{widths[1]}}  {out:<{widths[2]}}  {taken}".rstrip()
        for name, width, out, taken in rows
    ]
    lines += [
        f"protected: {counted(protected.channels, 'channel')} of {_listed(protected.names)}: {protected.reason}"
        for protected in graph.protected
    ]
    lines += [f"copy: {copy} loses the channels that {original} loses" for copy, original in graph.copies.items()]
    shapes = ", ".join(map(str, graph.example_shapes))
    lines.append(f"example {graph.example_origin}: {shapes}; {graph.macs():,.0f} MACs")
    return "\n".join(lines)


def _width(group: Group) -> str:
    return str(group.width) if group.width_per_unit == 1 else f"{group.num_units} x {group.width_per_unit}"


def _layers(group: Group, role: str) -> str:
    names = (member.tensor.rpartition(".")[0] or member.tensor for member in group.members if member.role == role)
    return _listed(dict.fromkeys(names))


def _listed(names: Iterable[str]) -> str:
    every = list(names)
    rest = f" and {len(every) - _MOST_NAMES} more" if len(every) > _MOST_NAMES else ""
    return ", ".join(every[:_MOST_NAMES]) + rest
