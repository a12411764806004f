"""Registry of handlers for optimizers whose state cannot be sliced by its shapes."""

from __future__ import annotations

from typing import Protocol

from torch.optim import Optimizer

from gsprune.rewrite.optimizers.states import StateSlicer

__all__ = ["StateHandler", "handler_of", "register_state_handler"]


class StateHandler(Protocol):
    """Lets the state of one kind of optimizer follow the parameters that a step cuts."""

    def slice_state(self, optimizer: Optimizer, slicer: StateSlicer) -> None:
        """Plan the changes of everything that the optimizer keeps; changes nothing itself.

        Args:
            optimizer: an optimizer of the kind that the handler was registered for.
            slicer: `slicer.cut_of(parameter)` tells how a step cuts a parameter; `slicer.slice(tensor, cut)` cuts a
                tensor in the same step, `slicer.set(dictionary, key, value)` sets an entry or attribute, and
                `slicer.note(text)` adds a line to the report.

        Raises:
            RewriteError: the state cannot follow; nothing will be changed.
        """


_HANDLERS: dict[type, StateHandler] = {}


def register_state_handler(kind: type, handler: StateHandler) -> None:
    """Let a handler slice the state of optimizers of a class and its subclasses.

    Args:
        kind: the optimizer's class; the handler of the most derived class is used.
        handler: replaces a handler registered before.

    Raises:
        TypeError: `kind` is not a class, or `handler` has no `slice_state`.
    """
    if not isinstance(kind, type):
        raise TypeError(f"`kind` must be an optimizer's class, got {kind!r}")
    if not callable(getattr(handler, "slice_state", None)):
        raise TypeError(f"`handler` must have a method `slice_state(optimizer, slicer)`, got {handler!r}")
    _HANDLERS[kind] = handler


def handler_of(optimizer: Optimizer) -> StateHandler | None:
    """The handler of an optimizer; None where its state is sliced by its shapes."""
    for kind in type(optimizer).__mro__:
        if kind in _HANDLERS:
            return _HANDLERS[kind]
    return None
