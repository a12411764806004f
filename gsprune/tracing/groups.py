"""From atoms to groups: settle the splits, find the components, name them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
from torch import nn

from gsprune import _core
from gsprune.tracing.graph import Graph, Group, IntArray, MacOperation, Member, Protected, Queries
from gsprune.tracing.tape import Axis, Split, Tape

__all__ = ["build_graph"]

_MAX_ROUNDS = 100  # a round ties at least one split for good; real networks need two or three
_OWN_NAMES = ("weight", "bias", "in_proj", "original", "running")  # tensors that go by their module's name


def build_graph(
    tape: Tape, model: nn.Module, example_shapes: Sequence[tuple[int, ...]], origin: Literal["given", "made"]
) -> Graph:
    """The graph of everything that the tape holds."""
    components = _Components(tape)
    components.settle()
    groups, group_of = _Grouping(tape, model, components).groups()
    batch = next((shape[0] for shape in example_shapes if shape), 1) or 1
    return Graph(
        groups=groups,
        protected=_protected(tape, components),
        shapes=tape.shapes,
        aliases=tape.aliases,
        mac_operations=_mac_operations(tape, batch),
        example_shapes=tuple(example_shapes),
        example_origin=origin,
        inexact=tuple(tape.inexact),
        queries=_queries(tape),
        trail=_trail(tape, components, group_of, [group.name for group in groups]),
    )


def _queries(tape: Tape) -> tuple[Queries, ...]:
    """Rows of projections, and of the biases added to them, that make the queries of scaled attention."""
    scaled = np.zeros(tape.num_atoms, bool)
    scaled[_flat(tape.queries)] = True
    for result, bias in tape.biases:
        whole, row = np.broadcast_arrays(result, bias)
        scaled[row[(row > 0) & scaled[np.maximum(whole, 0)]]] = True
    found = []
    for axis in tape.axes:
        rows = np.flatnonzero(scaled[axis.first : axis.first + axis.size])
        if len(rows):
            found.append(Queries(axis.tensor, axis.axis, rows))
    return tuple(found)


def _trail(
    tape: Tape, components: _Components, group_of: IntArray, names: Sequence[str]
) -> tuple[tuple[str, ...], ...]:
    """The groups that every traced operation met; layers are shared between operations and looked up once."""
    known: dict[int, tuple[int, ...]] = {}
    trail = []
    for layers in tape.steps:
        met: dict[int, None] = {}
        for layer in layers:
            if id(layer) not in known:
                atoms = layer[layer > 0]
                found = np.unique(group_of[components.labels[atoms]])
                known[id(layer)] = tuple(found[found >= 0].tolist())
            met.update(dict.fromkeys(known[id(layer)]))
        trail.append(tuple(names[index] for index in met))
    return tuple(trail)


def _mac_operations(tape: Tape, batch: int) -> tuple[MacOperation, ...]:
    """Uses per weight and example, in the order of the forward."""
    positions: dict[str, float] = {}
    for use in tape.mac_uses:
        positions[use.weight] = positions.get(use.weight, 0.0) + use.positions / batch
    return tuple(MacOperation(weight, count) for weight, count in positions.items())


class _Components:
    """Connected components of the atoms.

    Attributes:
        labels: (num_atoms,) component of each atom; atom 0 is the fixed label, alone in its component.
        opened: (num_components,) whether some layer makes these channels.
        reasons: (num_components,) index into `tape.protections` of the first that concerns it, -1 if none does.
        first_opening: (num_components,) the atom that was opened first, 0 if none was.
    """

    def __init__(self, tape: Tape) -> None:
        self.tape = tape
        self.sources: list[IntArray] = []
        self.targets: list[IntArray] = []
        for a, b, op in tape.pairs:
            self._add(a, b, op)
        self.refresh()

    def _add(self, a: npt.NDArray[np.int32], b: npt.NDArray[np.int32], op: str) -> None:
        """Unite atom by atom; an atom that meets the fixed label is protected."""
        first, second = a.reshape(-1), b.reshape(-1)
        if min(first.min(), second.min()) <= 0:
            for labels, other in ((first, second), (second, first)):
                fixed = labels[(other == 0) & (labels > 0)]
                if len(fixed):
                    self.tape.protect(fixed, f"{op} with channels of fixed number")
            both = (first > 0) & (second > 0)
            first, second = first[both], second[both]
        self.sources.append(first.astype(np.int64))
        self.targets.append(second.astype(np.int64))

    def refresh(self) -> None:
        """Compute components and their flags from all that is known by now."""
        tape = self.tape
        empty = np.zeros(0, np.int64)
        labels = _core.connected_components(
            tape.num_atoms, np.concatenate([empty, *self.sources]), np.concatenate([empty, *self.targets])
        )
        self.labels: IntArray = np.unique(labels, return_inverse=True)[1].astype(np.int64)
        self.num = int(self.labels.max()) + 1
        opened = _flat(tape.openings)
        self.first_opening = np.zeros(self.num, np.int64)
        self.first_opening[self.labels[opened[::-1]]] = opened[::-1]
        self.opened = self.first_opening > 0
        marks = [labels for labels, _ in tape.protections]
        index = np.repeat(np.arange(len(marks)), [labels.size for labels in marks])
        atoms = np.concatenate([empty, *[labels.reshape(-1) for labels in marks]])
        index, atoms = index[atoms > 0], atoms[atoms > 0]
        self.reasons = np.full(self.num, -1)
        self.reasons[self.labels[atoms[::-1]]] = index[::-1]
        self.prunable = self.opened & (self.reasons < 0)

    def settle(self) -> None:
        """Tie the parts of split axes that would not shrink alike, until all do."""
        pending = list(self.tape.splits)
        for _ in range(_MAX_ROUNDS):
            violated = [split for split in pending if self._violated(split)]
            if not violated:
                return
            for split in violated:
                first = split.labels.max(axis=self._tied_axes(split), keepdims=True)
                pair = np.broadcast_arrays(first, split.labels)
                self._add(pair[0], pair[1], "a split")
            self.refresh()
        for split in violated:
            self.tape.protect(split.labels, "splits that cannot be settled")
        self.refresh()

    def _of(self, split: Split) -> IntArray:
        """Component of every label; fixed and flexible ones have their own, below 0."""
        return np.where(
            split.labels > 0, self.labels[np.maximum(split.labels, 0)], -1 - split.labels.astype(np.int64) - 2
        )

    def _varying(self, split: Split) -> list[int]:
        """The axes of the split along which components differ."""
        components = self._of(split)
        return [axis for axis in split.axes if (components != components.take([0], axis)).any()]

    def _violated(self, split: Split) -> bool:
        """Whether the axes would not shrink independently: prunable components that differ along two or more."""
        components = self._of(split)
        atoms = components[components >= 0]
        return bool(self.prunable[atoms].any()) and len(self._varying(split)) > 1

    def _tied_axes(self, split: Split) -> tuple[int, ...]:
        """All axes of the split but the one along which channels go."""
        over = self._varying(split)
        keep = split.keep if split.keep in over else over[-1]
        return tuple(axis for axis in over if axis != keep)


def _flat(layers: Sequence[npt.NDArray[np.int32]]) -> IntArray:
    """All atoms of some layers, in order."""
    atoms: IntArray = np.concatenate([np.zeros(0, np.int64), *[layer.reshape(-1) for layer in layers]]).astype(np.int64)
    return atoms[atoms > 0]


@dataclass(slots=True)
class _Grouping:
    """Components with the same memberships, as groups."""

    tape: Tape
    model: nn.Module
    components: _Components

    def groups(self) -> tuple[tuple[Group, ...], IntArray]:
        """All prunable groups, in the order in which the forward opens them, and the group of each component or -1."""
        components, axes = self.components, self.tape.axes
        axis_of = np.concatenate([[-1], np.repeat(np.arange(len(axes)), [axis.size for axis in axes])]).astype(np.int64)
        atoms = np.flatnonzero(components.prunable[components.labels])
        group_of = np.full(components.num, -1, np.int64)
        if not len(atoms):
            return (), group_of
        entries, counts = np.unique(components.labels[atoms] * len(axes) + axis_of[atoms], return_counts=True)
        owner, member = entries // len(axes), entries % len(axes)
        starts = np.flatnonzero(np.diff(owner, prepend=-1))
        units = owner[starts]  # prunable components, ascending
        roots = components.first_opening[units]
        signature = self._signatures(member, counts, starts, axis_of[roots])
        order = self._order(roots, len(axes))
        unit_of = np.full(components.num, -1, np.int64)
        kinds: dict[int, int] = {}
        for position in order:
            kinds.setdefault(int(signature[position]), len(kinds))
        group_index = np.array([kinds[int(value)] for value in signature])
        groups, names = [], Counter[str]()
        inputs = np.zeros(len(axes), bool)
        inputs[axis_of[_flat(self.tape.inputs)]] = True
        inputs[axis_of[_flat(self.tape.openings)]] = False
        is_head = np.zeros(components.num, bool)
        is_head[components.labels[_flat(self.tape.heads)]] = True
        positions_of = [[] for _ in kinds]  # type: list[list[int]]
        for position in order:
            positions_of[group_index[position]].append(int(position))
        ends = np.append(starts[1:], len(entries))
        for index, positions in enumerate(positions_of):
            mine = units[positions]
            group_of[mine], unit_of[mine] = index, np.arange(len(mine))
            lead = positions[0]
            root_axis = int(axis_of[roots[lead]])
            span = slice(int(starts[lead]), int(ends[lead]))
            found = dict(zip(member[span].tolist(), counts[span].tolist(), strict=True))
            ordered = [root_axis, *[axis for axis in found if axis != root_axis]]
            members = tuple(self._member(axes[axis], index, group_of, unit_of, bool(inputs[axis])) for axis in ordered)
            name = _module_name(members[0].tensor)
            names[name] += 1
            groups.append(
                Group(
                    name=name if names[name] == 1 else f"{name}:{names[name]}",
                    num_units=len(mine),
                    width_per_unit=1 if is_head[mine].any() else int(found[root_axis]),
                    members=members,
                    kind=self._kind(members),
                )
            )
        return tuple(groups), group_of

    @staticmethod
    def _signatures(member: IntArray, counts: IntArray, starts: IntArray, roots: IntArray) -> npt.NDArray[np.uint64]:
        """A hash per component, equal where the memberships (axis, count) and the root's axis are."""
        random = np.random.default_rng(0)
        salts = random.integers(1, 2**63, size=(2, int(max(member.max(), roots.max())) + 1), dtype=np.uint64)
        with np.errstate(over="ignore"):
            each = salts[0, member] * (counts.astype(np.uint64) * np.uint64(2) + np.uint64(1))
            each ^= each >> np.uint64(29)
            each *= np.uint64(0xBF58476D1CE4E5B9)
            hashes: npt.NDArray[np.uint64] = np.add.reduceat(each, starts) ^ salts[1, roots]
            return hashes

    def _order(self, roots: IntArray, num_axes: int) -> IntArray:
        """Positions of components in the order of their first opening, and within one layer by position."""
        del num_axes
        opened = _flat(self.tape.openings)
        rank = np.full(self.tape.num_atoms, len(opened), np.int64)
        rank[opened[::-1]] = np.arange(len(opened))[::-1]
        return np.argsort(rank[roots], kind="stable")

    def _member(self, axis: Axis, group: int, group_of: IntArray, unit_of: IntArray, consumes: bool) -> Member:
        owners = self.components.labels[axis.first : axis.first + axis.size]
        units = np.where(group_of[owners] == group, unit_of[owners], -1)
        return Member(axis.tensor, axis.axis, units, "in" if consumes else "out")

    def _kind(self, members: Sequence[Member]) -> str:
        """The layer types, axes and roles of a group, counted."""
        parts: Counter[str] = Counter()
        for member in members:
            owner, _, leaf = member.tensor.rpartition(".")
            parts[f"{type(self.model.get_submodule(owner)).__name__}.{leaf}[{member.axis}]:{member.role}"] += 1
        root = members[0].tensor.rpartition(".")
        lead = f"{type(self.model.get_submodule(root[0])).__name__}.{root[2]}"
        return " ".join([lead, *[f"{part}*{count}" for part, count in sorted(parts.items())]])


def _module_name(tensor: str) -> str:
    """The layer that a tensor belongs to; a bare parameter goes by its own name."""
    layer, parametrized, _ = tensor.partition(".parametrizations.")
    owner, _, leaf = tensor.rpartition(".")
    if parametrized:
        return layer
    return owner if owner and leaf.startswith(_OWN_NAMES) else tensor


def _protected(tape: Tape, components: _Components) -> tuple[Protected, ...]:
    """Channels that layers make and that are kept, by reason, and layers that the forward did not use."""
    opened = np.unique(_flat(tape.openings))
    owner = components.labels[opened]
    firsts = np.array([axis.first for axis in tape.axes] + [tape.num_atoms])
    axis = np.searchsorted(firsts, opened, side="right") - 1
    root = np.searchsorted(firsts, components.first_opening[owner], side="right") - 1
    chosen = (components.reasons[owner] >= 0) & (axis == root)
    channels: Counter[str] = Counter()
    names: dict[str, dict[str, None]] = {}
    for index, reason in zip(axis[chosen].tolist(), components.reasons[owner[chosen]].tolist(), strict=True):
        text = tape.protections[reason][1]
        channels[text] += 1
        names.setdefault(text, {})[_module_name(tape.axes[index].tensor)] = None
    found = [Protected(text, tuple(names[text]), channels[text]) for text in names]
    unused = [name for name, shape in tape.shapes.items() if name not in tape.used and len(shape) > 1]
    if unused:
        layers = tuple(dict.fromkeys(_module_name(name) for name in unused))
        found.append(Protected("not used by the traced forward", layers, sum(tape.shapes[name][0] for name in unused)))
    return tuple(found)
