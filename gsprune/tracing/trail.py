"""The trail: the channels in the inputs and outputs of every operation of the traced forward.

It predicts the output sizes of the smaller network (`Structure.expected_operations`). If an operation has another size,
the forward relies on a number in its code or its attributes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from gsprune.tracing.shadow import Kind, Labels, Shadow, row_along, varying

__all__ = ["Axes", "Numbers", "Reading", "Scale", "TracedOperation", "TrailOperation", "Units", "build_trail"]

Units = npt.NDArray[np.int32]
Numbers = tuple[tuple[int | str, float], ...]
"""(position or name, value) of arguments."""
Reading = tuple[tuple[int, ...], ...] | complex | None
"""A number, or sizes of tensors, that an operation computed from values; None for operations that do not do so."""
Axes = tuple[tuple[int, Units], ...]
"""Units along the labelled axes of a tensor. They are numbered over all groups, -1 for positions that always stay."""


class Scale(NamedTuple):
    """A factor of attention. One that the forward computes from the width is ``width**(-exponent / 2)``.

    Attributes:
        value: the traced number.
        exponent: 1 if the operation multiplies by it, -1 if it divides, 0 if it must not change: the width does not.
        place: position or name of the argument.
        labels: labels of the queries; in a `TrailOperation` their units. Their number is the width.
        groups: in a `TrailOperation` the names of the queries' groups.
    """

    value: float
    exponent: float
    place: int | str
    labels: Units
    groups: tuple[str, ...] = ()


class TrailOperation(NamedTuple):
    """One operation of the traced forward.

    Attributes:
        op: its name ("aten.add").
        groups: names of the groups whose channels are in its inputs.
        outputs: per output tensor its labelled axes; None if it may have any size. Other axes may have any size.
        population: per input tensor the same, if the operation reads channels as a population; else empty. (None,) if
            it reads those that earlier operations have summed.
        scale: its factor, if that depends on a width.
        numbers: arguments that must stay the same.
        reading: the number or the sizes that it computed from values.
    """

    op: str
    groups: tuple[str, ...]
    outputs: tuple[Axes | None, ...]
    population: tuple[Axes | None, ...]
    scale: Scale | None
    numbers: Numbers
    reading: Reading


class TracedOperation(NamedTuple):
    """A `TrailOperation` during the trace, with layers instead of groups and units."""

    op: str
    inputs: list[Labels]
    outputs: list[Shadow]
    population: list[Shadow] | None
    scale: Scale | None
    numbers: Numbers
    reading: Reading


def build_trail(
    operations: Sequence[TracedOperation], units: Units, group_of_unit: Units, names: Sequence[str]
) -> tuple[TrailOperation, ...]:
    """The trail of all operations on the tape.

    Args:
        operations: the operations, in order.
        units: (num_atoms,) the unit of every atom; -1 for atom 0 and for atoms that cannot be removed.
        group_of_unit: (units + 1,) the group of every unit; the last entry, -1, is that of unit -1.
        names: names of the groups.
    """
    cache: dict[int, tuple[tuple[int, ...], Axes | None]] = {}

    def lookup(layer: Labels) -> tuple[tuple[int, ...], Axes | None]:
        """The groups of a layer and the units along its axes. Operations share layers, so the results are cached."""
        found = cache.get(id(layer))
        if found is None:
            here = units[np.maximum(layer, 0)]
            groups = group_of_unit[here]
            low, high = int(groups.min()), int(groups.max())
            among = (low,) if low == high else np.unique(groups).tolist()
            along = None if layer.min() < 0 else _along_axes(here)
            found = cache[id(layer)] = tuple(index for index in among if index >= 0), along
        return found

    def axes_of(shadow: Shadow) -> Axes | None:
        """All labelled axes of a tensor; None if a layer has flexible labels or two layers share an axis."""
        layers = [lookup(layer)[1] for layer in shadow.layers]
        if shadow.kind is Kind.CONSTANT or any(layer is None for layer in layers):
            return None
        axes = [own for layer in layers if layer is not None for own in layer]
        if not _are_distinct(axes):  # a view has merged axes of a parameter, of which one may never shrink
            axes = [(axis, along) for axis, along in axes if (along >= 0).any()]
        return tuple(axes) if _are_distinct(axes) else None

    trail = []
    for op, inputs, outputs, population, scale, numbers, reading in operations:
        groups = dict.fromkeys(names[index] for layer in inputs for index in lookup(layer)[0])
        axes = tuple(map(axes_of, outputs))
        read: tuple[Axes | None, ...] = (None,)
        if population is not None:
            read = tuple(axes_of(shadow) if shadow.layers else () for shadow in population)
        own_scale = None
        if scale is not None:
            queries = tuple(names[index] for index in lookup(scale.labels)[0])
            own_scale = scale._replace(labels=units[np.maximum(scale.labels, 0)].reshape(-1), groups=queries)
        trail.append(TrailOperation(op, tuple(groups), axes, read, own_scale, numbers, reading))
    return tuple(trail)


def _are_distinct(axes: Sequence[tuple[int, Units]]) -> bool:
    return len({axis for axis, _ in axes}) == len(axes)


def _along_axes(units: Units) -> Axes:
    """Units along each axis over which a layer varies; -1 along axes that do not shrink."""
    axes = varying(units)
    if len(axes) == 1:
        return ((axes[0], units.reshape(-1)),)
    lines = [row_along(units, axis) for axis in axes]
    fixed = [np.full_like(line, -1) if (line == line[0]).all() else line for line in lines]
    return tuple(zip(axes, fixed, strict=True))
