"""Runs a network with other scales of attention, and other rows that make the queries."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor

from gsprune.rewrite.attention_scale import multiply_rows, present_rows
from gsprune.rewrite.session import Session
from gsprune.tracing.graph import Queries
from gsprune.tracing.operation_mode import OperationMode
from gsprune.tracing.rules.registry import Operation
from gsprune.tracing.trail import Scale, TrailOperation

__all__ = ["MultipliedScales", "tensors_with_multiplied_rows"]


class MultipliedScales(OperationMode):
    """Multiplies scales of attention that the forward computes from a width by `factor(scale)`."""

    def __init__(self, trail: Sequence[TrailOperation], factor: Callable[[Scale], float]) -> None:
        super().__init__()
        self._trail, self._factor = trail, factor
        self._operations = 0

    def run(self, func: Any, operation: Operation, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Run an operation, with another scale if it has one."""
        scale = self._trail[self._operations].scale if self._operations < len(self._trail) else None
        self._operations += 1
        factor = self._factor(scale) if scale is not None and scale.exponent else 1.0
        if scale is None or factor == 1.0:
            return func(*args, **kwargs)
        if isinstance(scale.place, str):
            number = kwargs.get(scale.place) or args[0].shape[-1] ** -0.5  # torch's own if none is given
            return func(*args, **{**kwargs, scale.place: number * factor})
        before, number, after = args[: scale.place], args[scale.place], args[scale.place + 1 :]
        return func(*before, number * factor, *after, **kwargs)


def tensors_with_multiplied_rows(session: Session, factor: Callable[[Queries], float]) -> dict[str, Tensor]:
    """Copies of the tensors that make queries, by name, whose rows are multiplied by `factor(queries)`."""
    kept = session.groups.kept()
    copies: dict[str, Tensor] = {}
    for entry in session.groups.traced.queries:
        own = factor(entry)
        if own == 1.0:
            continue
        if entry.tensor not in copies:
            copies[entry.tensor] = session.bound.tensors[entry.tensor].detach().clone()
        multiply_rows(copies[entry.tensor], entry.axis, present_rows(kept, entry), own)
    return copies
