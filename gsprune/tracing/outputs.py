"""Find the tensors in whatever a forward returns."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

__all__ = ["tensors_in"]


def tensors_in(output: Any) -> list[Tensor]:
    """Every tensor in nested tuples, lists, dicts, dataclasses and plain objects (distributions, model outputs), once.

    Args:
        output: anything; modules are not entered.
    """
    found: dict[int, Tensor] = {}
    seen: dict[int, Any] = {}
    pending = [output]
    while pending:
        value = pending.pop()
        if isinstance(value, Tensor):
            found.setdefault(id(value), value)
            continue
        if id(value) in seen or isinstance(value, nn.Module | type | str | bytes):
            continue
        seen[id(value)] = value
        if isinstance(value, Mapping):
            pending += reversed(list(value.values()))
        elif isinstance(value, tuple | list | set | frozenset):
            pending += reversed(list(value))
        elif hasattr(value, "__dict__"):
            pending += reversed(list(vars(value).values()))
    return list(found.values())
