"""Builds the graph: components of atoms with the same memberships form a group."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np
from torch import nn

from gsprune.arrays import IntArray
from gsprune.tracing.components import Components, atoms_in, first_indices
from gsprune.tracing.graph import Graph, Group, Member, Protected, Queries, layer_of
from gsprune.tracing.originals import was_written, writable_tensors
from gsprune.tracing.tape import Tape
from gsprune.tracing.trail import TracedOperation, TrailOperation, build_trail

__all__ = ["build_graph"]

# Tensors that are named after their module.
_OWN_NAMES = ("weight", "bias", "in_proj", "original", "running")


def build_graph(
    tape: Tape, model: nn.Module, example_shapes: Sequence[tuple[int, ...]], origin: Literal["given", "made"]
) -> Graph:
    """The graph that follows from the notes on the tape."""
    components = Components(tape)
    components.settle()
    types = {name: type(module).__name__ for name, module in model.named_modules(remove_duplicate=False)}
    axis_of = np.repeat(np.arange(-1, len(tape.axes)), [1, *[axis.size for axis in tape.axes]])  # by atom
    groups, group_of, unit_of = _groups(tape, types, components, axis_of)
    batch = next((shape[0] for shape in example_shapes if shape), 1) or 1
    return Graph(
        groups=groups,
        protected=_protected(tape, components, axis_of),
        shapes=tape.shapes,
        aliases=tape.aliases,
        copies=tape.copies,
        unseen=tape.unseen,
        written=tuple(name for name, tensor in writable_tensors(model).items() if was_written(tensor)),
        weight_uses={weight: count / batch for weight, count in tape.weight_uses.items()},
        example_shapes=tuple(example_shapes),
        example_origin=origin,
        inexact=_inexact(tape, components),
        mixed=_mixed(tape, components, groups, group_of),
        queries=_queries(tape),
        trail=_trail(tape.trail, components, groups, group_of, unit_of),
        training_trail=_trail(tape.training_trail, components, groups, group_of, unit_of),
    )


def _inexact(tape: Tape, components: Components) -> tuple[str, ...]:
    """Operations that read prunable channels as a population."""
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
    operations: Sequence[TracedOperation],
    components: Components,
    groups: Sequence[Group],
    group_of: IntArray,
    unit_of: IntArray,
) -> tuple[TrailOperation, ...]:
    """A trail in units. `group_of` and `unit_of` are indexed by component."""
    counts = [group.num_units for group in groups]
    first_unit = np.cumsum([0, *counts])
    of_component = np.where(group_of < 0, -1, unit_of + first_unit[group_of])
    group_of_unit = np.append(np.repeat(np.arange(len(groups)), counts), -1)
    units = of_component[components.labels].astype(np.int32)
    return build_trail(operations, units, group_of_unit.astype(np.int32), [group.name for group in groups])


def _groups(
    tape: Tape, types: Mapping[str, str], components: Components, axis_of: IntArray
) -> tuple[tuple[Group, ...], IntArray, IntArray]:
    """All prunable groups in the order in which the forward opens them; group and unit of each component, or -1.

    `types` are the names of the modules' classes.
    """
    partition = _partition(tape, components, axis_of)
    group_of, unit_of = np.full(tape.num_atoms, -1), np.full(tape.num_atoms, -1)
    for number, (_, _, units) in enumerate(partition):
        group_of[units], unit_of[units] = number, np.arange(len(units))
    consumes = np.zeros(len(tape.axes), bool)
    consumes[axis_of[atoms_in(tape.inputs)]] = True
    consumes[axis_of[atoms_in(tape.openings)]] = False
    is_head = np.zeros(tape.num_atoms, bool)
    is_head[components.labels[atoms_in(tape.heads)]] = True
    groups: list[Group] = []
    names: Counter[str] = Counter()
    for number, (root, copies, units) in enumerate(partition):
        members = []
        for index in (root, *(index for index in copies if index != root)):
            axis = tape.axes[index]
            owners = components.labels[axis.first : axis.first + axis.size]
            own = np.where(group_of[owners] == number, unit_of[owners], -1)
            members.append(Member(axis.tensor, axis.axis, own, "in" if consumes[index] else "out"))
        name = _module_name(members[0].tensor)
        names[name] += 1
        name = name if names[name] == 1 else f"{name}:{names[name]}"
        width_per_unit = 1 if is_head[units].any() else copies[root]
        groups.append(Group(name, len(units), width_per_unit, tuple(members), _kind(types, members)))
    return tuple(groups), group_of, unit_of


def _partition(tape: Tape, components: Components, axis_of: IntArray) -> list[tuple[int, dict[int, int], IntArray]]:
    """Prunable components by root and memberships: [(root axis, {axis: atoms in one component}, components)]."""
    num_axes = max(len(tape.axes), 1)
    atoms = np.flatnonzero(components.prunable[components.labels])
    pairs, counts = np.unique(components.labels[atoms] * num_axes + axis_of[atoms], return_counts=True)
    owner, axis = np.divmod(pairs, num_axes)
    prunable, starts = np.unique(owner, return_index=True)
    memberships = np.split(np.stack([axis, counts], axis=1), starts[1:])
    roots = components.first_opening[prunable]
    root_axes = axis_of[roots].tolist()
    same: dict[tuple[int, bytes], list[int]] = {}
    for index in _order(tape, roots).tolist():
        same.setdefault((root_axes[index], memberships[index].tobytes()), []).append(index)
    return [(root, dict(memberships[found[0]].tolist()), prunable[found]) for (root, _), found in same.items()]


def _order(tape: Tape, roots: IntArray) -> IntArray:
    """Positions of components in the order of their first opening, and within one layer by position."""
    rank = first_indices(tape.num_atoms, atoms_in(tape.openings))
    return np.argsort(rank[roots], kind="stable")


def _kind(types: Mapping[str, str], members: Sequence[Member]) -> str:
    """The layer types, axes and roles of a group, counted."""
    parts: Counter[str] = Counter()
    for member in members:
        owner, leaf = _typed_owner(types, member.tensor)
        parts[f"{owner}.{leaf}[{member.axis}]:{member.role}"] += 1
    lead = ".".join(_typed_owner(types, members[0].tensor))
    return " ".join([lead, *[f"{part}*{count}" for part, count in sorted(parts.items())]])


def _typed_owner(types: Mapping[str, str], tensor: str) -> tuple[str, str]:
    """The class of the innermost module that holds a tensor, and the tensor's name there.

    A container of tensors (torchrl's ``TensorDictParams``) has names with dots, and no submodules.
    """
    owner = layer_of(tensor)
    while owner not in types:
        owner = layer_of(owner)
    return types[owner], tensor[len(owner) + bool(owner) :]


def _module_name(tensor: str) -> str:
    """The name of the layer that a tensor belongs to; a bare parameter's own name."""
    layer, parametrized, _ = tensor.partition(".parametrizations.")
    owner, _, leaf = tensor.rpartition(".")
    if parametrized:
        return layer
    return owner if owner and leaf.startswith(_OWN_NAMES) else tensor


def _protected(tape: Tape, components: Components, axis_of: IntArray) -> tuple[Protected, ...]:
    """Protected channels that layers make, by reason, and layers that the forward did not use."""
    opened = np.unique(atoms_in(tape.openings))
    owner, axis = components.labels[opened], axis_of[opened]
    chosen = (components.reasons[owner] >= 0) & (axis == axis_of[components.first_opening[owner]])
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
