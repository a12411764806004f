"""Checks that scaled rows of queries have the effect of a scale of attention that the forward computes.

The present network runs with these rows divided by four and these scales multiplied by four. Its output must stay the
same. It does not if the rows make only a part of the queries (a bias, one of several heads), have other uses, or are
normalised before they are used. The comparison with the masked network cannot show this behind a LayerNorm.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from gsprune.errors import is_out_of_memory
from gsprune.rewrite.agreement import DoubtError, compare
from gsprune.rewrite.attention_scale import multiply_rows, present_rows
from gsprune.rewrite.session import Session
from gsprune.rewrite.transaction import temporary_data
from gsprune.tracing.graph import Graph, Queries
from gsprune.tracing.operation_mode import OperationMode
from gsprune.tracing.plain_operations import plain_operations
from gsprune.tracing.rules.registry import Operation
from gsprune.tracing.temporary_eval import temporary_eval
from gsprune.tracing.trail import TrailOperation

__all__ = ["groups_of_queries", "groups_without_scalable_queries"]

_FACTOR = 4.0  # its root is a power of two, too, so that all products are exact


class _MultipliedScales(OperationMode):
    """Multiplies the scales of some groups' queries."""

    def __init__(self, trail: Sequence[TrailOperation], groups: frozenset[str]) -> None:
        super().__init__()
        self._trail, self._groups = trail, groups
        self._operations = 0

    def run(self, func: Any, operation: Operation, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Run an operation, with another scale if it has one."""
        scale = self._trail[self._operations].scale if self._operations < len(self._trail) else None
        self._operations += 1
        if scale is None or not scale.exponent or self._groups.isdisjoint(scale.groups):
            return func(*args, **kwargs)
        factor = _FACTOR**scale.exponent
        if isinstance(scale.place, str):
            number = kwargs.get(scale.place) or args[0].shape[-1] ** -0.5  # torch's own if none is given
            return func(*args, **{**kwargs, scale.place: number * factor})
        before, number, after = args[: scale.place], args[scale.place], args[scale.place + 1 :]
        return func(*before, number * factor, *after, **kwargs)


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
    model, trail = session.model, session.groups.traced.trail
    assert session.example is not None
    divided = _divided_tensors(session, groups)
    tensors, scales = [session.bound.tensors[name] for name in divided], _MultipliedScales(trail, groups)
    try:
        with temporary_eval(model), temporary_data(tensors, list(divided.values())), plain_operations(model), scales:
            return session.example.call(model)
    except Exception as error:
        if is_out_of_memory(error):
            raise
        return None


def _divided_tensors(session: Session, groups: frozenset[str]) -> dict[str, Tensor]:
    """Copies of the tensors with rows of some groups' queries, which are divided."""
    kept, graph = session.groups.kept(), session.groups.traced
    copies: dict[str, Tensor] = {}
    for entry in graph.queries if groups else ():
        if groups.isdisjoint(_groups_of(graph, entry)):
            continue
        if entry.tensor not in copies:
            copies[entry.tensor] = session.bound.tensors[entry.tensor].detach().clone()
        multiply_rows(copies[entry.tensor], entry.axis, present_rows(kept, entry), 1 / _FACTOR)
    return copies


def _groups_of(graph: Graph, entry: Queries) -> set[str]:
    """Names of the groups that own rows of queries."""
    return {
        group.name
        for group in graph.groups
        for member in group.members
        if member.tensor == entry.tensor and member.axis == entry.axis and (member.units[entry.rows] >= 0).any()
    }
