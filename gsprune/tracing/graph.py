"""The result of a trace: the groups of a network.

A graph holds names and integer vectors, no tensor and no module, so it can be copied, pickled and compared.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from gsprune.arrays import IntArray
from gsprune.tracing.table import graph_table
from gsprune.tracing.trail import TrailOperation

__all__ = ["Graph", "Group", "Member", "Protected", "Queries", "layer_of"]


def layer_of(tensor: str) -> str:
    """The name of the layer that a tensor belongs to: the tensor's name without its last component."""
    return tensor.rpartition(".")[0]


@dataclass(frozen=True, slots=True)
class Member:
    """The positions along one axis of a parameter or buffer that belong to a group.

    Attributes:
        tensor: canonical name (the first name of a tied tensor) as in ``named_parameters`` or ``named_buffers``.
        axis: the axis, >= 0.
        units: (shape[axis],) int64; the unit of the group that owns each position; -1 for positions of another group
            or of none.
        role: "out" where the axis opens or carries the channels (a weight's outputs, a bias, a norm's parameters),
            "in" where it consumes them (a weight's inputs).
    """

    tensor: str
    axis: int
    units: IntArray
    role: Literal["in", "out"]


@dataclass(frozen=True, slots=True)
class Group:
    """Units (channels) with the same memberships: they are scored together and removed one by one.

    Attributes:
        name: the name of the layer that opens the channels (the root), unique within the graph.
        num_units: number of units.
        width_per_unit: channels of the root's width per unit: the number of conv groups or of tied parts. It is 1 for
            heads, whose width is that of one head.
        members: the tied axes; the first is the root.
        kind: equal for groups of equal structure (isomorphic scope).
    """

    name: str
    num_units: int
    width_per_unit: int
    members: tuple[Member, ...]
    kind: str

    @property
    def root(self) -> Member:
        """The axis that opens the channels."""
        return self.members[0]

    @property
    def width(self) -> int:
        """The width to which `round_to` and `min_channels` apply."""
        return self.num_units * self.width_per_unit

    def layers(self, role: str) -> list[str]:
        """Names of the layers with members of a role; a parameter of the model itself has its own name."""
        return list(dict.fromkeys(layer_of(m.tensor) or m.tensor for m in self.members if m.role == role))


@dataclass(frozen=True, slots=True)
class Protected:
    """Channels that are never removed, with the reason.

    Attributes:
        reason: for example "output of the network" or "aten.cumsum has no rule".
        names: names of the layers.
        channels: number of channels.
    """

    reason: str
    names: tuple[str, ...]
    channels: int


@dataclass(frozen=True, slots=True)
class Queries:
    """Rows of a projection whose products are the queries of an attention that scales by 1 / sqrt(width of a head).

    The scale grows if rows are removed. Multiplying the kept rows by sqrt(rows after / rows before) compensates for it.

    Attributes:
        tensor: a weight or its bias.
        axis: the axis of its outputs.
        rows: sorted int64 positions along that axis.
    """

    tensor: str
    axis: int
    rows: IntArray


@dataclass(frozen=True, slots=True)
class Graph:
    """The groups of one network.

    Attributes:
        groups: prunable groups in the order in which the forward pass opens them.
        protected: channels that are not prunable, by reason.
        shapes: shape of every parameter and buffer by canonical name.
        aliases: other names of tied tensors -> canonical name.
        weight_uses: weight -> number of uses of each of its elements per example, one MAC each.
        example_shapes: shapes of the example's tensors, for messages.
        example_origin: "given" or "made" (by the tracer, from the first layer).
        inexact: names of operations that read a channel axis as a population (LayerNorm, softmax over channels, ...).
            With them the sliced network is not exactly the masked one.
        mixed: names of the groups whose channels meet each other without a weight of the network: in a norm or softmax
            over channels, a sum over them, a product of two activations.
        trail: every operation that the traced forward dispatched, in order.
        training_trail: those of the forward in training mode; empty if it does not run, or if no code of the user
            depends on the mode.
        queries: rows whose removal changes an attention's scale.
        copies: {copy: original}, names of submodules that lose the same channels.
        unseen: submodules that the traced forward has not run, and that may read channels.
        written: parameters (of a momentum encoder) and tensors in attributes that the traced forward has written to.
    """

    groups: tuple[Group, ...]
    protected: tuple[Protected, ...]
    shapes: Mapping[str, tuple[int, ...]]
    aliases: Mapping[str, str]
    weight_uses: Mapping[str, float]
    example_shapes: tuple[tuple[int, ...], ...]
    example_origin: Literal["given", "made"]
    inexact: tuple[str, ...]
    mixed: frozenset[str] = frozenset()
    trail: tuple[TrailOperation, ...] = ()
    training_trail: tuple[TrailOperation, ...] = ()
    queries: tuple[Queries, ...] = ()
    copies: Mapping[str, str] = field(default_factory=dict)
    unseen: tuple[str, ...] = ()
    written: tuple[str, ...] = ()

    def __str__(self) -> str:
        return graph_table(self)

    def group(self, name: str) -> Group:
        """The group of that name.

        Raises:
            KeyError: there is none.
        """
        for group in self.groups:
            if group.name == name:
                return group
        raise KeyError(name)

    def is_copy(self, tensor: str) -> bool:
        """True if a tensor belongs to a copy. Only the original is scored."""
        return any(tensor.startswith(f"{copy}.") for copy in self.copies)

    def macs(self) -> float:
        """MACs of one example (weights only), from the trace and the present shapes."""
        uses = self.weight_uses.items()
        return float(sum(count * np.prod(self.shapes[weight], dtype=np.float64) for weight, count in uses))

    def removed(self, removed_units: Mapping[str, IntArray]) -> dict[str, dict[int, IntArray]]:
        """Positions of the tensors that are removed with some units.

        Args:
            removed_units: group name -> sorted int64 unit indices.

        Returns:
            tensor name -> {axis: sorted int64 positions}; only tensors and axes that lose something.
        """
        removed: dict[str, dict[int, list[IntArray]]] = {}
        for group in self.groups:
            units = removed_units.get(group.name)
            if units is None or len(units) == 0:
                continue
            is_removed = np.zeros(group.num_units + 1, dtype=bool)  # the last entry is that of unit -1
            is_removed[units] = True
            for member in group.members:
                positions = np.flatnonzero(is_removed[member.units])
                removed.setdefault(member.tensor, {}).setdefault(member.axis, []).append(positions)
        return {
            tensor: {axis: np.sort(np.concatenate(parts)) for axis, parts in axes.items()}
            for tensor, axes in removed.items()
        }
