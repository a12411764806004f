"""What every operation of the traced forward met and made: which groups, and which units lie along each axis.

The sizes of all its outputs follow from that for the smaller network, before it runs (`Structure.due`): a forward that
makes another one counts on a size written down somewhere.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from gsprune.tracing.shadow import Kind, Labels, Shadow, varying

__all__ = ["Numbers", "Passage", "Step", "Units", "passages"]

Units = npt.NDArray[np.int32]
Numbers = tuple[tuple[int, float], ...]


class Scale(NamedTuple):
    """A number that the forward computed as width**(-exponent / 2), where queries' rows make up for its change.

    Attributes:
        value: the number as traced.
        exponent: 1 where it multiplies, -1 where it divides.
        labels: of the queries, whose number of channels tells how the width has changed; units in a `Passage`.
    """

    value: float
    exponent: float
    labels: Units


class Passage(NamedTuple):
    """One operation of the traced forward.

    Attributes:
        op: its name ("aten.add").
        groups: names of the groups whose channels are in its inputs.
        outputs: per output tensor ((axis, units along it), ...) of its labelled axes, units numbered over all groups
            and -1 where nothing goes; None where nothing is known of the output. Other axes may have any size.
        scale: the number that it scales by, if that follows a width.
        numbers: (position, value) of arguments that must stay the same.
    """

    op: str
    groups: tuple[str, ...]
    outputs: tuple[tuple[tuple[int, Units], ...] | None, ...]
    scale: Scale | None = None
    numbers: Numbers = ()


class Step(NamedTuple):
    """The same while the network is traced: layers in place of groups and units."""

    op: str
    inputs: list[Labels]
    outputs: list[Shadow]
    scale: Scale | None
    numbers: Numbers


def passages(steps: Sequence[Step], units: Units, group_of_unit: Units, names: Sequence[str]) -> tuple[Passage, ...]:
    """Passages of all steps; layers are shared between operations and looked up once.

    Args:
        steps: what the tape holds.
        units: (num_atoms,) the unit of every atom, -1 where it cannot be removed; of atom 0, too.
        group_of_unit: (units + 1,) index of every unit's group; the last entry, -1, answers for unit -1.
        names: of the groups.
    """
    known: dict[int, tuple[tuple[int, ...], tuple[tuple[int, Units], ...] | None]] = {}

    def looked_up(layer: Labels) -> tuple[tuple[int, ...], tuple[tuple[int, Units], ...] | None]:
        found = known.get(id(layer))
        if found is None:
            here = units[np.maximum(layer, 0)]
            groups = group_of_unit[here]
            low, high = int(groups.min()), int(groups.max())
            among = (low,) if low == high else np.unique(groups).tolist()
            along = None if layer.min() < 0 else _along_axes(here)
            found = known[id(layer)] = tuple(index for index in among if index >= 0), along
        return found

    result = []
    for op, inputs, outputs, scale, numbers in steps:
        met = dict.fromkeys(index for layer in inputs for index in looked_up(layer)[0])
        made = tuple(_output(shadow, [looked_up(layer)[1] for layer in shadow.layers]) for shadow in outputs)
        by = None if scale is None else scale._replace(labels=units[np.maximum(scale.labels, 0)].reshape(-1))
        result.append(Passage(op, tuple(names[index] for index in met), made, by, numbers))
    return tuple(result)


def _along_axes(units: Units) -> tuple[tuple[int, Units], ...]:
    """Units along each axis over which a layer varies; where the other axis is the one that shrinks, none go."""
    axes = varying(units)
    if len(axes) == 1:
        return ((axes[0], units.reshape(-1)),)
    found = []
    for axis in axes:
        line = units[tuple(slice(None) if other == axis else 0 for other in range(units.ndim))]
        found.append((axis, np.full_like(line, -1) if (line == line[0]).all() else line))
    return tuple(found)


def _output(
    shadow: Shadow, layers: Sequence[tuple[tuple[int, Units], ...] | None]
) -> tuple[tuple[int, Units], ...] | None:
    """All labelled axes of an output; None where a layer holds free labels, or two layers share an axis."""
    if shadow.kind is Kind.CONSTANT:
        return None
    axes: list[tuple[int, Units]] = []
    for layer in layers:
        if layer is None:
            return None
        axes += layer
    return tuple(axes) if len({axis for axis, _ in axes}) == len(axes) else None
