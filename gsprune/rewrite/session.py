"""The data about one model that gsprune keeps from step to step.

A session is a plain attribute of the module, so that deepcopy and pickle take it along. It holds names, integers and
the example. Only its `binding` holds tensors of the model; a copy or a pickle goes without it.
"""

from __future__ import annotations

from copy import deepcopy
from dataclasses import dataclass, field, replace
from typing import Any

from torch import nn

from gsprune.arrays import IntArray
from gsprune.rewrite.binding import Binding
from gsprune.rewrite.size_links import SizeLink
from gsprune.tracing.example import Example
from gsprune.tracing.graph import Graph, Group
from gsprune.tracing.structure import Structure

__all__ = ["SESSION_ATTRIBUTE", "Session", "session_of"]

SESSION_ATTRIBUTE = "_gsprune_session"


@dataclass
class Session:
    """One model: its groups, its example, its first-seen widths and the kept indices in dense numbering.

    Attributes:
        structure: the present groups of the network; None after `gsprune.load`, until the next step traces it.
        example: the call used for tracing and checking; None after `gsprune.load`.
        initial_widths: group name -> first-seen width (`Group.width`).
        kept_before: the value of `kept` when the network was traced; empty if it was dense.
        attributes: module name -> {attribute: present value} for integers of user code that pruning has changed.
        links: the axes that those integers follow.
        verified: names of the groups that were narrower when a forward of the rewritten network passed its check.
        refused: group name -> reason, for groups whose width the user's code relies on.
        dense_shapes: first-seen shapes of the tensors in `kept`, read from a checkpoint; else the graph has them.
        recorded_groups: groups read from a checkpoint or found with an earlier example. A trace of a narrow network
            sees less: a group of one unit has nothing that varies, and a depthwise convolution of one channel looks
            like any other.
        binding: the model's tensors and modules by name, looked up once per process; None before the first step.
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
    recorded_groups: tuple[Group, ...] = ()
    binding: Binding | None = field(default=None, compare=False, repr=False)

    @property
    def graph(self) -> Graph | None:
        """The groups as a `Graph`; None after `gsprune.load`."""
        return None if self.structure is None else self.structure.graph

    @property
    def bound(self) -> Binding:
        """The model's tensors and modules by name; only during a step."""
        assert self.binding is not None
        return self.binding

    @property
    def model(self) -> nn.Module:
        """The model; only during a step."""
        return self.bound.module

    @property
    def groups(self) -> Structure:
        """The structure; only during a step, when the model is traced."""
        assert self.structure is not None
        return self.structure

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

    def after(self, structure: Structure, links: tuple[SizeLink, ...], verified: frozenset[str]) -> Session:
        """The session after a step; reads the present values of linked integers from the model."""
        attributes: dict[str, dict[str, Any]] = {}
        for link in links:
            attributes.setdefault(link.module, {})[link.attribute] = self.bound.stored_value(link)
        attributes = attributes or self.attributes
        return replace(self, structure=structure, attributes=attributes, links=links, verified=verified)

    def __getstate__(self) -> dict[str, Any]:
        """Drop the binding, and an example whose `forward` is the user's own function, often a lambda."""
        state = {**self.__dict__, "binding": None}
        if self.example is not None and self.example.forward is not None:
            state["example"] = None
        return state

    def __deepcopy__(self, memo: dict[int, Any]) -> Session:
        """Keep the example, `forward` included, and share the structure, which never changes."""
        shared: dict[str, Any] = {"structure": self.structure, "binding": None}
        own = {name: deepcopy(value, memo) for name, value in self.__dict__.items() if name not in shared}
        return Session(**shared, **own)


def session_of(model: nn.Module) -> Session | None:
    """The session of `model`, or None if no step has traced it."""
    session = model.__dict__.get(SESSION_ATTRIBUTE)
    assert session is None or isinstance(session, Session)
    return session
