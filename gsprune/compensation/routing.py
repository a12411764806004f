"""Marks tensors whose samples an index has selected, as in a mixture of experts or behind a removal of tokens."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from gsprune.tracing.call import outputs_of

__all__ = ["note_route", "route_of"]

_ROUTE = "_gsprune_route"
_SELECTIONS = frozenset(f"aten.{name}" for name in ("index", "index_select", "gather", "masked_select"))
_WRITES = frozenset(
    f"aten.{name}"
    for name in ("index_add", "index_copy", "index_put", "scatter", "scatter_add", "scatter_reduce", "masked_scatter")
)


def route_of(tensor: Tensor) -> int | None:
    """A number that is equal if the same indices have selected the samples of a tensor; None if none has."""
    found: int | None = tensor.__dict__.get(_ROUTE)
    return found


def note_route(op: str, inputs: Sequence[Tensor], result: Any) -> None:
    """Mark the result of an operation. Samples that are written back into a tensor have its order."""
    read = inputs[:1] if op in _WRITES else inputs
    routes = sorted({route for route in map(route_of, read) if route is not None})
    if op in _SELECTIONS:
        routes += [_fingerprint(tensor) for tensor in inputs[1:]]
    for output in outputs_of(result) if routes else ():
        output.__dict__[_ROUTE] = routes[0] if len(routes) == 1 else hash(tuple(routes))


def _fingerprint(index: Tensor) -> int:
    """A number for the contents of an index, without the axes along which it is expanded (to channels)."""
    for axis, stride in enumerate(index.stride()):
        if stride == 0:
            index = index.narrow(axis, 0, min(index.shape[axis], 1))
    return hash((tuple(index.shape), index.cpu().numpy().tobytes()))
