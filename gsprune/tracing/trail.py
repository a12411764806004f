"""The trail: which channels every operation of the traced forward met and made.

The sizes of all its outputs follow from that for the smaller network, before it runs (`Structure.expected`): a forward
that makes another size counts on a number written down somewhere.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from gsprune.tracing.shadow import Kind, Labels, Shadow, row_along, varying

__all__ = ["Numbers", "Scale", "TracedOperation", "TrailOperation", "Units", "build_trail"]

Units = npt.NDArray[np.int32]
Numbers = tuple[tuple[int, float], ...]
_Axes = tuple[tuple[int, Units], ...]


class Scale(NamedTuple):
    """A number that the forward computed as width**(-exponent / 2), where queries' rows make up for its change.

    Attributes:
        value: the number as traced.
        exponent: 1 where it multiplies, -1 where it divides.
        labels: labels of the queries, whose number of channels tells how the width has changed; units in the trail.
    """

    value: float
    exponent: float
    labels: Units


class TrailOperation(NamedTuple):
    """One operation of the traced forward.

    Attributes:
        op: its name ("aten.add").
        groups: names of the groups whose channels are in its inputs.
        outputs: per output tensor ((axis, units along it), ...) of its labelled axes, units numbered over all groups
            and -1 where nothing is ever removed; None where the output may have any size. So may other axes.
        scale: the number that it scales by, if that follows a width.
        numbers: (position, value) of arguments that must stay the same.
    """

    op: str
    groups: tuple[str, ...]
    outputs: tuple[_Axes | None, ...]
    scale: Scale | None = None
    numbers: Numbers = ()


class TracedOperation(NamedTuple):
    """The same while the network is traced: layers in place of groups and units."""

    op: str
    inputs: list[Labels]
    outputs: list[Shadow]
    scale: Scale | None
    numbers: Numbers


def build_trail(
    operations: Sequence[TracedOperation], units: Units, group_of_unit: Units, names: Sequence[str]
) -> tuple[TrailOperation, ...]:
    """The trail of all operations. Layers are shared between operations, and looked up once.

    Args:
        operations: those on the tape.
        units: (num_atoms,) the unit of every atom, -1 where it cannot be removed; of atom 0, too.
        group_of_unit: (units + 1,) index of every unit's group; the last entry, -1, stands for unit -1.
        names: of the groups.
    """
    cache: dict[int, tuple[tuple[int, ...], _Axes | None]] = {}

    def lookup(layer: Labels) -> tuple[tuple[int, ...], _Axes | None]:
        """The groups of a layer and the units along its axes."""
        found = cache.get(id(layer))
        if found is None:
            here = units[np.maximum(layer, 0)]
            groups = group_of_unit[here]
            low, high = int(groups.min()), int(groups.max())
            among = (low,) if low == high else np.unique(groups).tolist()
            along = None if layer.min() < 0 else _along_axes(here)
            found = cache[id(layer)] = tuple(index for index in among if index >= 0), along
        return found

    trail = []
    for op, inputs, outputs, scale, numbers in operations:
        met = dict.fromkeys(index for layer in inputs for index in lookup(layer)[0])
        made = tuple(_output(shadow, [lookup(layer)[1] for layer in shadow.layers]) for shadow in outputs)
        by = None if scale is None else scale._replace(labels=units[np.maximum(scale.labels, 0)].reshape(-1))
        trail.append(TrailOperation(op, tuple(names[index] for index in met), made, by, numbers))
    return tuple(trail)


def _along_axes(units: Units) -> _Axes:
    """Units along each axis over which a layer varies; -1 along an axis if another one is the one that shrinks."""
    axes = varying(units)
    if len(axes) == 1:
        return ((axes[0], units.reshape(-1)),)
    lines = [row_along(units, axis) for axis in axes]
    fixed = [np.full_like(line, -1) if (line == line[0]).all() else line for line in lines]
    return tuple(zip(axes, fixed, strict=True))


def _output(shadow: Shadow, layers: Sequence[_Axes | None]) -> _Axes | None:
    """All labelled axes of an output; None if a layer holds free labels, or two layers share an axis."""
    if shadow.kind is Kind.CONSTANT:
        return None
    axes: list[tuple[int, Units]] = []
    for layer in layers:
        if layer is None:
            return None
        axes += layer
    return tuple(axes) if len({axis for axis, _ in axes}) == len(axes) else None
