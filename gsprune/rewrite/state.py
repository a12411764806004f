"""What a pruned model carries with it: its graph, its first-seen widths and the kept indices in dense numbering.

The state is a plain attribute of the module, so that deepcopy and pickle take it along. It holds names, integers and
the example, never a parameter.
"""

from __future__ import annotations

from copy import deepcopy
from dataclasses import dataclass, field
from typing import Any

from torch import nn

from gsprune.tracing.example import Example
from gsprune.tracing.graph import Graph, IntArray

__all__ = ["STATE_ATTRIBUTE", "Example", "PruneState", "SizeLink", "attach_state", "state_of"]

STATE_ATTRIBUTE = "_gsprune_state"


@dataclass(frozen=True, slots=True)
class SizeLink:
    """An integer of user code that follows an axis: ``attribute = length of the axis // divisor``.

    Attributes:
        module: name of the module that stores it.
        attribute: name of the attribute.
        index: position within a tuple or list, None for a plain integer.
        tensor: name of the parameter or buffer.
        axis: its axis.
        divisor: number of heads where the integer is the size of one, else 1.
    """

    module: str
    attribute: str
    index: int | None
    tensor: str
    axis: int
    divisor: int


@dataclass(slots=True)
class PruneState:
    """State of one model.

    Attributes:
        graph: the groups of the network as it is now; None after `gsprune.load`, until the next step traces it.
        example: the call used for tracing and checking; None after `gsprune.load`.
        initial_widths: group name -> first-seen width (`Group.width`).
        kept: tensor -> {axis: kept indices in the dense numbering, sorted int64}; only axes that lost something.
        dense_shapes: first-seen shapes of the tensors in `kept`, where a file told them; else the graph does.
        attributes: module name -> {attribute: present value} for integers of user code that pruning has changed.
        initial_params: first-seen number of parameters.
        initial_macs: first-seen MACs per example.
        links: what those integers follow.
        verified: whether a forward of a rewritten network has passed.
        refused: group name -> reason: groups that sizes written into the user's code hold fast.
    """

    graph: Graph | None
    example: Example | None
    initial_widths: dict[str, int]
    kept: dict[str, dict[int, IntArray]] = field(default_factory=dict)
    attributes: dict[str, dict[str, Any]] = field(default_factory=dict)
    initial_params: int = 0
    initial_macs: float = 0.0
    links: tuple[SizeLink, ...] = ()
    verified: bool = False
    refused: dict[str, str] = field(default_factory=dict)
    dense_shapes: dict[str, tuple[int, ...]] = field(default_factory=dict)

    def __getstate__(self) -> dict[str, Any]:
        """A pickle goes without an example whose `forward` is the user's own function, often a lambda."""
        state = {name: getattr(self, name) for name in self.__slots__}
        if self.example is not None and self.example.forward is not None:
            state["example"] = None
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        for name, value in state.items():
            setattr(self, name, value)

    def __deepcopy__(self, memo: dict[int, Any]) -> PruneState:
        """A deep copy in the same process keeps the example, `forward` included."""
        copied = {name: deepcopy(getattr(self, name), memo) for name in self.__slots__ if name != "graph"}
        return PruneState(graph=self.graph, **copied)


def state_of(model: nn.Module) -> PruneState | None:
    """The state that lives with `model`, or None if it was never traced by a step."""
    state = model.__dict__.get(STATE_ATTRIBUTE)
    assert state is None or isinstance(state, PruneState)
    return state


def attach_state(model: nn.Module, state: PruneState | None) -> None:
    """Let `state` live with `model`; None takes it away."""
    if state is None:
        model.__dict__.pop(STATE_ATTRIBUTE, None)
    else:
        model.__dict__[STATE_ATTRIBUTE] = state
