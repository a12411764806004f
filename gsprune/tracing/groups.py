"""Groups from atoms: components with the same memberships, in order and with names."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
from torch import nn

from gsprune.arrays import BoolArray, IntArray
from gsprune.tracing.components import Components, atoms_in
from gsprune.tracing.graph import Graph, Group, Member, Protected, Queries
from gsprune.tracing.tape import Axis, Tape
from gsprune.tracing.trail import TrailOperation, build_trail

__all__ = ["build_graph"]

_OWN_NAMES = ("weight", "bias", "in_proj", "original", "running")  # tensors that go by their module's name


def build_graph(
    tape: Tape, model: nn.Module, example_shapes: Sequence[tuple[int, ...]], origin: Literal["given", "made"]
) -> Graph:
    """The graph of everything that the tape holds."""
    components = Components(tape)
    components.settle()
    types = {name: type(module).__name__ for name, module in model.named_modules(remove_duplicate=False)}
    groups, group_of, unit_of = _Grouping(tape, types, components).groups()
    batch = next((shape[0] for shape in example_shapes if shape), 1) or 1
    return Graph(
        groups=groups,
        protected=_protected(tape, components),
        shapes=tape.shapes,
        aliases=tape.aliases,
        copies=tape.copies,
        unseen=tape.unseen,
        weight_uses={weight: count / batch for weight, count in tape.weight_uses.items()},
        example_shapes=tuple(example_shapes),
        example_origin=origin,
        inexact=_inexact(tape, components),
        mixed=_mixed(tape, components, groups, group_of),
        queries=_queries(tape),
        trail=_trail(tape, components, groups, group_of, unit_of),
    )


def _inexact(tape: Tape, components: Components) -> tuple[str, ...]:
    """Operations that read channels as a population, of which some can be removed."""
    found: dict[str, None] = {}
    for op, layer in tape.populations:
        if op not in found and components.prunable[components.labels[np.maximum(layer, 0)]].any():
            found[op] = None
    return tuple(found)


def _mixed(tape: Tape, components: Components, groups: Sequence[Group], group_of: IntArray) -> frozenset[str]:
    """Names of the groups whose channels meet without a weight. `group_of` is indexed by component."""
    atoms = atoms_in([*(layer for _, layer in tape.populations), *tape.unweighted])
    found = np.unique(group_of[components.labels[atoms]])
    return frozenset(groups[index].name for index in found[found >= 0].tolist())


def _queries(tape: Tape) -> tuple[Queries, ...]:
    """Rows of projections, and of the biases added to them, that make the queries of scaled attention."""
    scaled = np.zeros(tape.num_atoms, bool)
    scaled[atoms_in(tape.queries)] = True
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
    tape: Tape, components: Components, groups: Sequence[Group], group_of: IntArray, unit_of: IntArray
) -> tuple[TrailOperation, ...]:
    """The trail in units. `group_of` and `unit_of` are indexed by component."""
    counts = [group.num_units for group in groups]
    first_unit = np.append(np.concatenate([[0], np.cumsum(counts)[:-1]]) if counts else [0], 0)
    of_component = np.where(group_of < 0, -1, unit_of + first_unit[group_of])
    group_of_unit = np.append(np.repeat(np.arange(len(groups)), counts), -1)
    units = of_component[components.labels].astype(np.int32)
    return build_trail(tape.trail, units, group_of_unit.astype(np.int32), [group.name for group in groups])


@dataclass(slots=True)
class _Grouping:
    """Components with the same memberships, as groups."""

    tape: Tape
    types: Mapping[str, str]  # module name -> name of its class
    components: Components

    def groups(self) -> tuple[tuple[Group, ...], IntArray, IntArray]:
        """All prunable groups in the order in which the forward opens them; group and unit of each component, or -1."""
        components, axes = self.components, self.tape.axes
        group_of = np.full(self.tape.num_atoms, -1, np.int64)
        sizes = np.array([0, *[axis.size for axis in axes]], np.int64)
        axis_of = np.concatenate([[-1], np.repeat(np.arange(len(axes)), sizes[1:])]).astype(np.int64)
        atoms = np.flatnonzero(components.prunable[components.labels])
        if not len(atoms):
            return (), group_of, group_of
        entries, counts = np.unique(components.labels[atoms] * len(axes) + axis_of[atoms], return_counts=True)
        owner, member = np.divmod(entries, len(axes))
        starts = np.flatnonzero(np.diff(owner, prepend=-1))
        roots = components.first_opening[owner[starts]]
        order = self._order(roots)
        signatures = self._signatures(member, counts, starts, axis_of[roots])[order]
        _, firsts, inverse = np.unique(signatures, return_index=True, return_inverse=True)
        number = np.argsort(np.argsort(firsts))[inverse]  # groups are numbered by their first unit
        units = owner[starts][order]
        group_of[units] = number
        positions = np.argsort(number, kind="stable")
        widths = np.bincount(number)
        unit_of = np.full(self.tape.num_atoms, -1, np.int64)
        unit_of[units[positions]] = np.arange(len(units)) - np.repeat(np.cumsum(widths) - widths, widths)
        consumes, is_head = self._flags(axis_of)
        has_heads = np.bincount(number, weights=is_head[units]) > 0
        groups: list[Group] = []
        names: Counter[str] = Counter()
        for index, first in enumerate(np.sort(firsts)):
            unit = int(order[first])
            span = slice(int(starts[unit]), int(starts[unit + 1]) if unit + 1 < len(starts) else None)
            found = dict(zip(member[span].tolist(), counts[span].tolist(), strict=True))
            root = int(axis_of[roots[unit]])
            members = tuple(
                self._member(axes[axis], index, group_of, unit_of, bool(consumes[axis]))
                for axis in (root, *(axis for axis in found if axis != root))
            )
            name = _module_name(members[0].tensor)
            names[name] += 1
            name = name if names[name] == 1 else f"{name}:{names[name]}"
            copies = 1 if has_heads[index] else int(found[root])
            groups.append(Group(name, int(widths[index]), copies, members, self._kind(members)))
        return tuple(groups), group_of, unit_of

    def _flags(self, axis_of: IntArray) -> tuple[BoolArray, BoolArray]:
        """Which axes consume channels, and which components are tied across heads."""
        consumes = np.zeros(len(self.tape.axes), bool)
        consumes[axis_of[atoms_in(self.tape.inputs)]] = True
        consumes[axis_of[atoms_in(self.tape.openings)]] = False
        is_head = np.zeros(self.tape.num_atoms, bool)
        is_head[self.components.labels[atoms_in(self.tape.heads)]] = True
        return consumes, is_head

    @staticmethod
    def _signatures(member: IntArray, counts: IntArray, starts: IntArray, roots: IntArray) -> npt.NDArray[np.uint64]:
        """A hash per component, equal where the memberships (axis, count) and the root's axis are."""
        generator = np.random.default_rng(0)
        salts = generator.integers(1, 2**63, size=(2, int(max(member.max(), roots.max())) + 1), dtype=np.uint64)
        with np.errstate(over="ignore"):
            each = salts[0, member] * (counts.astype(np.uint64) * np.uint64(2) + np.uint64(1))
            each ^= each >> np.uint64(29)
            each *= np.uint64(0xBF58476D1CE4E5B9)
            hashes: npt.NDArray[np.uint64] = np.add.reduceat(each, starts) ^ salts[1, roots]
            return hashes

    def _order(self, roots: IntArray) -> IntArray:
        """Positions of components in the order of their first opening, and within one layer by position."""
        opened = atoms_in(self.tape.openings)
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
            parts[f"{self.types[owner]}.{leaf}[{member.axis}]:{member.role}"] += 1
        root = members[0].tensor.rpartition(".")
        lead = f"{self.types[root[0]]}.{root[2]}"
        return " ".join([lead, *[f"{part}*{count}" for part, count in sorted(parts.items())]])


def _module_name(tensor: str) -> str:
    """The layer that a tensor belongs to; a bare parameter goes by its own name."""
    layer, parametrized, _ = tensor.partition(".parametrizations.")
    owner, _, leaf = tensor.rpartition(".")
    if parametrized:
        return layer
    return owner if owner and leaf.startswith(_OWN_NAMES) else tensor


def _protected(tape: Tape, components: Components) -> tuple[Protected, ...]:
    """Channels that layers make and that are kept, by reason, and layers that the forward did not use."""
    opened = np.unique(atoms_in(tape.openings))
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
