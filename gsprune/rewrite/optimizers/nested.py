"""The parts of a Python value: entries of containers, attributes of objects.

Optimizers keep state in lists, deques, named tuples, dataclasses and objects with slots. All are read the same way.
"""

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
    """True for collections that list their entries; False for objects, strings and tensors."""
    return isinstance(value, Mapping | list | tuple | deque | Set)


def may_hold_tensors(value: Any) -> bool:
    """False for numbers, strings, tuples of them, and tensors of one element, as most attributes are."""
    if type(value) in _NUMBERS:
        return False
    if type(value) in (tuple, list):
        return any(map(may_hold_tensors, value))
    if isinstance(value, FunctionType | partial):
        return bool(_bound_in(value))
    return bool(value.numel() != 1) if isinstance(value, Tensor) else not isinstance(value, _PLAIN_KINDS)


def parts_of(value: Any) -> list[tuple[Any, Any]] | None:
    """(key, part) for every entry and attribute; none of a plain value.

    Returns:
        None for an object that may hold tensors, but does not list them (an iterator, a type of an extension).
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
    """Tensors and containers that a function has in its closure, its defaults or its bound arguments."""
    if isinstance(function, partial):
        bound = [*function.args, *function.keywords.values()]
    else:
        bound = [*(function.__defaults__ or ()), *(function.__kwdefaults__ or {}).values()]
        for cell in function.__closure__ or ():
            try:
                bound.append(cell.cell_contents)
            except ValueError:  # an empty cell: the name is not bound yet
                continue
    return [part for part in bound if (isinstance(part, Tensor) or is_container(part)) and may_hold_tensors(part)]


def _slots_of(kind: type) -> tuple[str, ...]:
    slots = kind.__dict__.get("__slots__", ())
    names = (slots,) if isinstance(slots, str) else tuple(slots)
    # Names with two leading underscores are stored under the class's name.
    mangled = (f"_{kind.__name__.lstrip('_')}{n}" if n.startswith("__") and not n.endswith("__") else n for n in names)
    return tuple(name for name in mangled if name not in ("__dict__", "__weakref__"))
