"""Registry of handlers for optimizers whose states cannot be sliced by their shapes."""

from __future__ import annotations

from typing import Protocol

from torch.optim import Optimizer

from gsprune.checks import check_object
from gsprune.rewrite.optimizers.states import StateSlicer

__all__ = ["StateHandler", "handler_of", "register_state_handler"]


class StateHandler(Protocol):
    """Slices the state of an optimizer class with the parameters that a step cuts."""

    def slice_state(self, optimizer: Optimizer, slicer: StateSlicer) -> None:
        """Plan the changes of the optimizer's state; change nothing yet.

        Args:
            optimizer: an optimizer of the registered class.
            slicer: `slicer.cut_of(parameter)` returns the cut of a parameter; `slicer.slice(tensor, cut)` cuts a
                tensor in the same step, `slicer.set(dictionary, key, value)` sets an entry or attribute, and
                `slicer.note(text)` adds a line to the report.

        Raises:
            RewriteError: the state cannot be sliced; then the step changes nothing.
        """


_HANDLERS: dict[type, StateHandler] = {}


def register_state_handler(kind: type, handler: StateHandler) -> None:
    """Register the handler of an optimizer class and its subclasses.

    Args:
        kind: the optimizer's class; the handler of the most derived class is used.
        handler: replaces an earlier handler of the class.

    Raises:
        TypeError: `kind` is not a class, or `handler` is a class or has no `slice_state`.
    """
    if not isinstance(kind, type):
        raise TypeError(f"`kind` must be an optimizer's class, got {kind!r}")
    check_object("handler", handler)
    if not callable(getattr(handler, "slice_state", None)):
        raise TypeError(f"`handler` must have a method `slice_state(optimizer, slicer)`, got {handler!r}")
    _HANDLERS[kind] = handler


def handler_of(optimizer: Optimizer) -> StateHandler | None:
    """The handler of an optimizer; None if its state is sliced by shapes."""
    for kind in type(optimizer).__mro__:
        if kind in _HANDLERS:
            return _HANDLERS[kind]
    return None
