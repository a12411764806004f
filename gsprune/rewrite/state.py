"""What a pruned model carries with it: its graph, its first-seen widths and the kept indices in dense numbering.

The state is a plain attribute of the module, so that deepcopy and pickle take it along. It holds names, integers and
the example, never a parameter.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from torch import nn

from gsprune.tracing.graph import Graph, IntArray

__all__ = ["Example", "PruneState", "attach_state", "state_of"]

_ATTRIBUTE = "_gsprune_state"


@dataclass(slots=True)
class Example:
    """The call that traces and checks the model: ``forward(model, *args, **kwargs)``.

    Attributes:
        args: positional inputs.
        kwargs: inputs by name (an example given as a dict).
        forward: what to call instead of the model; None calls ``model(*args, **kwargs)``.
    """

    args: tuple[Any, ...]
    kwargs: dict[str, Any] = field(default_factory=dict)
    forward: Callable[..., Any] | None = None

    def call(self, model: nn.Module) -> Any:
        """The model's output on the example."""
        if self.forward is not None:
            return self.forward(model, *self.args, **self.kwargs)
        return model(*self.args, **self.kwargs)


@dataclass(slots=True)
class PruneState:
    """State of one model.

    Attributes:
        graph: the groups of the network as it is now; None after `gsprune.load`, until the next step traces it.
        example: the call used for tracing and checking; None after `gsprune.load`.
        initial_widths: group name -> first-seen width (`Group.width`).
        kept: tensor -> {axis: kept indices in the dense numbering, sorted int64}; only axes that lost something.
        attributes: module name -> {attribute: present value} for integers of user code that pruning has changed.
        verified: whether a forward of a rewritten network has passed.
    """

    graph: Graph | None
    example: Example | None
    initial_widths: dict[str, int]
    kept: dict[str, dict[int, IntArray]] = field(default_factory=dict)
    attributes: dict[str, dict[str, Any]] = field(default_factory=dict)
    verified: bool = False


def state_of(model: nn.Module) -> PruneState | None:
    """The state that lives with `model`, or None if it was never traced by a step."""
    state = model.__dict__.get(_ATTRIBUTE)
    assert state is None or isinstance(state, PruneState)
    return state


def attach_state(model: nn.Module, state: PruneState | None) -> None:
    """Let `state` live with `model`; None takes it away."""
    if state is None:
        model.__dict__.pop(_ATTRIBUTE, None)
    else:
        model.__dict__[_ATTRIBUTE] = state
