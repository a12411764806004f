"""What a pruned model carries with it: its graph, its first-seen widths and the kept indices in dense numbering.

The state is a plain attribute of the module, so that deepcopy and pickle take it along. It holds names, integers and
the example, never a parameter.
"""

from __future__ import annotations

from copy import deepcopy
from dataclasses import dataclass, field
from typing import Any

from torch import nn

from gsprune.rewrite.size_links import SizeLink
from gsprune.tracing.example import Example
from gsprune.tracing.graph import Graph, Group, IntArray
from gsprune.tracing.structure import Structure

__all__ = ["SESSION_ATTRIBUTE", "Session", "session_of"]

SESSION_ATTRIBUTE = "_gsprune_session"


@dataclass
class Session:
    """State of one model.

    Attributes:
        structure: the groups of the network as they are now; None after `gsprune.load`, until the next step traces it.
        example: the call used for tracing and checking; None after `gsprune.load`.
        initial_widths: group name -> first-seen width (`Group.width`).
        kept_before: what `kept` was when the network was traced; empty where it was traced dense.
        dense_shapes: first-seen shapes of the tensors in `kept`, where a file told them; else the graph does.
        known_groups: groups that a file told of. A trace of a narrow network sees less: a group of one unit has nothing
            that varies, and a depthwise convolution of one channel looks like any other.
        attributes: module name -> {attribute: present value} for integers of user code that pruning has changed.
        links: what those integers follow.
        verified: names of the groups that were narrower when a forward of the rewritten network passed its check.
        refused: group name -> reason: groups that sizes written into the user's code hold fast.
        cache: what one process looked up in the model, to be looked up again elsewhere.
    """

    structure: Structure | None
    example: Example | None
    initial_widths: dict[str, int]
    kept_before: dict[str, dict[int, IntArray]] = field(default_factory=dict)
    attributes: dict[str, dict[str, Any]] = field(default_factory=dict)
    links: tuple[SizeLink, ...] = ()
    verified: frozenset[str] = frozenset()
    refused: dict[str, str] = field(default_factory=dict)
    dense_shapes: dict[str, tuple[int, ...]] = field(default_factory=dict)
    known_groups: tuple[Group, ...] = ()
    cache: Any = field(default=None, compare=False, repr=False)

    @property
    def graph(self) -> Graph | None:
        """The groups as a `Graph`; None after `gsprune.load`."""
        return None if self.structure is None else self.structure.graph

    @property
    def kept(self) -> dict[str, dict[int, IntArray]]:
        """Tensor -> {axis: kept indices in the dense numbering, sorted int64}; only axes that lost something."""
        kept = {name: dict(axes) for name, axes in self.kept_before.items()}
        if self.structure is None:
            return kept
        for name, axes in self.structure.kept().items():
            for axis, positions in axes.items():
                dense = kept.get(name, {}).get(axis)
                kept.setdefault(name, {})[axis] = positions if dense is None else dense[positions]
        return kept

    def __getstate__(self) -> dict[str, Any]:
        """A pickle goes without an example whose `forward` is the user's own function, often a lambda."""
        state = {**self.__dict__, "cache": None}
        if self.example is not None and self.example.forward is not None:
            state["example"] = None
        return state

    def __deepcopy__(self, memo: dict[int, Any]) -> Session:
        """A deep copy in the same process keeps the example, `forward` included; structures are never changed."""
        shared: dict[str, Any] = {"structure": self.structure, "cache": None}
        own = {name: deepcopy(value, memo) for name, value in self.__dict__.items() if name not in shared}
        return Session(**shared, **own)


def session_of(model: nn.Module) -> Session | None:
    """The state that lives with `model`, or None if it was never traced by a step."""
    state = model.__dict__.get(SESSION_ATTRIBUTE)
    assert state is None or isinstance(state, Session)
    return state
