"""Checks that scaled rows of queries have the effect of a scale of attention that the forward computes.

The present network runs with these rows divided by four and these scales multiplied by four. Its output must stay the
same. It does not if the rows make only a part of the queries (a bias, one of several heads), have other uses, or are
normalised before they are used. This is checked if the output of the smaller network is wrong, or cannot be compared.
"""

from __future__ import annotations

from typing import Any

from gsprune.errors import is_out_of_memory
from gsprune.rewrite.agreement import DoubtError, compare
from gsprune.rewrite.multiplied_scales import MultipliedScales, tensors_with_multiplied_rows
from gsprune.rewrite.session import Session
from gsprune.rewrite.transaction import temporary_data
from gsprune.tracing.graph import Graph, Queries
from gsprune.tracing.plain_operations import plain_operations
from gsprune.tracing.temporary_eval import temporary_eval

__all__ = ["groups_of_queries", "groups_without_scalable_queries"]

_FACTOR = 4.0  # its root is a power of two, too, so that all products are exact


def groups_of_queries(session: Session) -> frozenset[str]:
    """Names of the groups whose width changes a scale of attention."""
    scales = [each.scale for each in session.groups.traced.trail if each.scale is not None]
    return frozenset(name for scale in scales if scale.exponent for name in scale.groups)


def groups_without_scalable_queries(session: Session, groups: frozenset[str]) -> frozenset[str]:
    """Those of `groups` whose queries' rows do not have the effect of the scale; the example is run several times.

    Raises:
        Exception: memory ran out.
    """
    expected = _output(session, frozenset())
    if _agrees(_output(session, groups), expected):
        return frozenset()
    wrong = frozenset(name for name in groups if not _agrees(_output(session, frozenset((name,))), expected))
    return wrong or groups


def _agrees(output: Any, expected: Any) -> bool:
    try:
        return output is not None and expected is not None and compare(output, expected) is None
    except DoubtError:
        return False


def _output(session: Session, groups: frozenset[str]) -> Any:
    """The output with the rows and scales of some groups multiplied; None if the call fails."""
    model, graph = session.model, session.groups.traced
    assert session.example is not None
    changed = tensors_with_multiplied_rows(
        session, lambda entry: 1.0 if groups.isdisjoint(_groups_of(graph, entry)) else 1 / _FACTOR
    )
    scales = MultipliedScales(
        graph.trail, lambda scale: 1.0 if groups.isdisjoint(scale.groups) else _FACTOR**scale.exponent
    )
    tensors = [session.bound.tensors[name] for name in changed]
    try:
        with temporary_eval(model), temporary_data(tensors, list(changed.values())), plain_operations(model), scales:
            return session.example.call(model)
    except Exception as error:
        if is_out_of_memory(error):
            raise
        return None


def _groups_of(graph: Graph, entry: Queries) -> set[str]:
    """Names of the groups that own rows of queries."""
    return {
        group.name
        for group in graph.groups
        for member in group.members
        if member.tensor == entry.tensor and member.axis == entry.axis and (member.units[entry.rows] >= 0).any()
    }
