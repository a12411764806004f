"""Protects the tensors that a forward returns or stores."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from gsprune.tracing.marks import unmark
from gsprune.tracing.tape import OUTPUT, Tape

__all__ = ["protect_outputs", "tensors_in"]


def tensors_in(output: Any) -> list[Tensor]:
    """Every tensor in nested containers, dataclasses and plain objects (distributions, model outputs), once."""
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


def protect_outputs(tape: Tape, model: nn.Module, output: Any) -> None:
    """Protect the tensors that the caller of the network may read.

    These are the returned tensors. If the call returns None, they are also the tensors that it stored in an attribute,
    a list or a hook. In other calls, stored tensors are protected only if the network does not consume their channels
    (`Components`).
    """
    returned = tensors_in(output)
    for tensor in returned:
        tape.protect(tape.of(tensor), OUTPUT)
    own = {id(buffer) for name, buffer in model.named_buffers() if name in tape.shapes}
    ignored = own.union(*({id(tensor), id(tensor._base)} for tensor in returned))
    for marked in tape.marked:
        stored = marked()
        if stored is None or id(stored) in ignored:
            continue
        shadow = tape.of(stored)
        if output is None:
            tape.protect(shadow, f"{OUTPUT}: stored outside of it")
        tape.stored.extend(shadow.layers)
        unmark(stored)
    tape.marked.clear()
