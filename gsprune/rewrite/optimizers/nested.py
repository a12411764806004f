"""The parts of a Python value: entries of containers and attributes of objects, dataclasses and slots included."""

from __future__ import annotations

import gc
from collections import deque
from collections.abc import Mapping, Set
from enum import Enum
from functools import partial
from types import BuiltinFunctionType, FunctionType, MethodType, ModuleType, NoneType
from typing import Any

import numpy as np
import torch
from torch import Tensor

__all__ = ["is_container", "may_hold_tensors", "parts_of"]

_NUMBERS = frozenset((bool, int, float, NoneType))
_PLAIN_KINDS = (
    *(NoneType, bool, int, float, complex, str, bytes, Enum, type, np.generic),
    *(torch.dtype, torch.device, torch.layout, torch.memory_format, torch.Generator, torch.Size),
    *(ModuleType, MethodType, BuiltinFunctionType),
)


def is_container(value: Any) -> bool:
    """True for mappings, sequences and sets; False for other objects, strings and tensors."""
    return isinstance(value, Mapping | list | tuple | deque | Set)


def may_hold_tensors(value: Any) -> bool:
    """False for numbers, strings, tuples of them, and tensors with one element."""
    if type(value) in _NUMBERS:
        return False
    if type(value) in (tuple, list):
        return any(map(may_hold_tensors, value))
    if isinstance(value, FunctionType | partial):
        return bool(_bound_in(value))
    return bool(value.numel() != 1) if isinstance(value, Tensor) else not isinstance(value, _PLAIN_KINDS)


def parts_of(value: Any) -> list[tuple[Any, Any]] | None:
    """(key, part) for every entry and attribute.

    Returns:
        [] for a plain value; None for an object with hidden parts that may hold tensors (an iterator, an extension
        type).
    """
    if isinstance(value, (*_PLAIN_KINDS, np.ndarray)):
        return []
    if isinstance(value, FunctionType | partial):
        return list(enumerate(_bound_in(value)))
    parts: list[tuple[Any, Any]] = []
    if isinstance(value, Mapping):
        parts += value.items()
    elif is_container(value):
        parts += enumerate(value)
    slots = [name for kind in type(value).__mro__ for name in _slots_of(kind)]
    parts += [(name, getattr(value, name)) for name in slots if hasattr(value, name)]
    parts += getattr(value, "__dict__", {}).items()
    if parts or is_container(value) or not gc.is_tracked(value):
        return parts
    hidden = any(may_hold_tensors(part) and part != {} for part in gc.get_referents(value))
    return None if hidden else []


def _bound_in(function: FunctionType | partial[Any]) -> list[Any]:
    """Tensors and containers in a function's closure, defaults or bound arguments."""
    if isinstance(function, partial):
        bound = [*function.args, *function.keywords.values()]
    else:
        bound = [*(function.__defaults__ or ()), *(function.__kwdefaults__ or {}).values()]
        for cell in function.__closure__ or ():
            try:
                bound.append(cell.cell_contents)
            except ValueError:  # an empty cell
                continue
    return [part for part in bound if (isinstance(part, Tensor) or is_container(part)) and may_hold_tensors(part)]


def _slots_of(kind: type) -> tuple[str, ...]:
    slots = kind.__dict__.get("__slots__", ())
    names = (slots,) if isinstance(slots, str) else tuple(slots)
    # Python mangles names with two leading underscores.
    mangled = (f"_{kind.__name__.lstrip('_')}{n}" if n.startswith("__") and not n.endswith("__") else n for n in names)
    return tuple(name for name in mangled if name not in ("__dict__", "__weakref__"))
