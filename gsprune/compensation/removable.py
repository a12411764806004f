"""Units whose removal changes nothing: constants, and those that nobody reads."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from gsprune.arrays import BoolArray, IntArray
from gsprune.checks import counted
from gsprune.compensation.read_inputs import ReadInputs, find_read_inputs
from gsprune.tracing.example import Example
from gsprune.tracing.graph import Group, Member
from gsprune.tracing.structure import Structure

__all__ = ["CompactionReport", "RemovableUnits"]


@dataclass(frozen=True)
class CompactionReport:
    """Units that `gsprune.compact` removes: group name -> sorted int64 unit indices, numbered as before.

    Attributes:
        constant: units that have the same value for every input.
        unread: units that only weights of zero read.
        dormant: units that are constant on the calibration data.
        bordered: constants that stay, because a zero-padded convolution reads them.
        unclear: weight -> reason, for weights whose units stay because they may be read in an unknown way.
    """

    constant: Mapping[str, IntArray]
    unread: Mapping[str, IntArray]
    dormant: Mapping[str, IntArray]
    bordered: Mapping[str, IntArray]
    unclear: Mapping[str, str]

    def __str__(self) -> str:
        """One line."""
        numbers = [
            f"{sum(map(len, units.values()))} {name}"
            for name, units in (("constant", self.constant), ("unread", self.unread), ("dormant", self.dormant))
        ]
        text = f"compacted: {', '.join(numbers)}"
        bordered = sum(map(len, self.bordered.values()))
        if bordered:
            names = ", ".join(self.bordered)
            text += f"; {counted(bordered, 'constant unit')} of {names} must stay: a zero-padded convolution reads them"
        return text


class RemovableUnits:
    """Finds the units that can be removed without changing the output.

    Args:
        model: the network.
        structure: its groups.
        tensors: its parameters and buffers by canonical name.
        example: the call to trace it with.
        calibration: inputs on which units may be constant; None looks at the weights alone.
        tolerance: spread of a dormant unit's values, relative to the largest input of the layer that reads it.

    Attributes:
        inputs: weight -> its inputs on the example, for weights that read channels of groups.
        axes: weight -> the axis along which it reads them.
    """

    def __init__(
        self,
        model: nn.Module,
        structure: Structure,
        tensors: Mapping[str, Tensor],
        example: Example,
        calibration: Sequence[Example] | None,
        tolerance: float,
    ) -> None:
        self.structure, self.graph, self._tensors = structure, structure.graph, tensors
        self.axes = {m.tensor: m.axis for group in self.graph.groups for m in group.members if m.role == "in"}
        self.inputs, unclear = find_read_inputs(model, self.graph, [example], for_any_input=True)
        self._seen: dict[str, ReadInputs] = {}
        if calibration is not None:
            self._seen, more = find_read_inputs(model, self.graph, calibration, for_any_input=False)
            unclear |= more
        self.unclear, self._tolerance = unclear, tolerance
        self._owners = self._owners_of_positions()

    def choose(self, frozen: frozenset[str]) -> tuple[BoolArray, CompactionReport]:
        """The units to keep, of all groups, and the reasons for the others.

        One unit of every group stays. Units that only removed units read can be removed, too, and so on.

        Args:
            frozen: names of groups that keep their width.
        """
        keep = np.ones(self.structure.num_units, dtype=bool)
        groups = [(first, group) for first, group in self._groups() if group.name not in frozen]
        while True:
            kept_before = keep.copy()
            for first, group in groups:
                span = slice(first, first + group.num_units)
                gone = kept_before[span] & self._removable(group, kept_before)
                if not (kept_before[span] & ~gone).any():
                    gone[np.flatnonzero(kept_before[span])[:1]] = False
                keep[span] &= ~gone
            if (keep == kept_before).all():
                return keep, self._report(keep, groups)

    def constants(self, weight: str) -> Tensor:
        """(channels,) float64, the constants that a weight reads and its biases can take; 0 for other channels."""
        inputs, seen = self.inputs[weight], self._seen.get(weight)
        values = torch.zeros_like(inputs.low)
        if seen is not None:
            values = torch.where(seen.within(self._tolerance) & seen.foldable(self._tolerance), seen.constant, values)
        exact = inputs.within(0.0) & ~inputs.depends & inputs.foldable(0.0)
        return torch.where(exact, inputs.constant, values)

    def _groups(self) -> list[tuple[int, Group]]:
        """The groups of which units can be removed, and where their units begin."""
        bounds = self.structure.first_unit.tolist()
        return [
            (first, group)
            for first, group in zip(bounds, self.graph.groups, strict=False)
            if group.name not in self.graph.mixed
            and not any(member.tensor in self.unclear for member in group.members)
            and all(member.tensor in self.inputs for member in self._readers(group))
            and self._readers(group)
        ]

    def _readers(self, group: Group) -> list[Member]:
        return [m for m in group.members if m.role == "in" and not self.graph.is_copy(m.tensor)]

    def _removable(self, group: Group, keep: BoolArray) -> BoolArray:
        members = self._readers(group)
        return _of_units(group, members, [self._is_constant(m, keep) for m in members])

    def _is_constant(self, member: Member, keep: BoolArray) -> BoolArray:
        """(positions,) True where removed channels make no difference to a weight's product."""
        return self._is_exact(member.tensor) | self._is_dormant(member.tensor) | self._is_unread(member, keep)

    def _is_exact(self, weight: str) -> BoolArray:
        inputs = self.inputs[weight]
        constant = inputs.within(0.0) & ~inputs.depends & inputs.foldable(0.0)
        return inputs.per_position(constant, self._length(weight))

    def _is_dormant(self, weight: str) -> BoolArray:
        inputs = self._seen.get(weight)
        if inputs is None:
            return np.zeros(self._length(weight), dtype=bool)
        constant = inputs.within(self._tolerance) & inputs.foldable(self._tolerance)
        return inputs.per_position(constant, self._length(weight))

    def _is_unread(self, member: Member, keep: BoolArray) -> BoolArray:
        """(positions,) True where the weight is zero in all rows that stay."""
        weight = self._tensors[member.tensor].detach().abs()
        for axis in range(weight.ndim):
            owners = self._owners.get((member.tensor, axis))
            if axis != member.axis and owners is not None:
                rows = np.flatnonzero((owners < 0) | keep[owners])
                weight = weight.index_select(axis, _indices(rows, weight))
        result: BoolArray = (weight.movedim(member.axis, 0).flatten(1) == 0).all(1).cpu().numpy()
        return result

    def _length(self, weight: str) -> int:
        return self.graph.shapes[weight][self.axes[weight]]

    def _owners_of_positions(self) -> dict[tuple[str, int], IntArray]:
        """(tensor, axis) -> the unit of each position, numbered over all groups; -1 where there is none."""
        owners: dict[tuple[str, int], IntArray] = {}
        for first, group in zip(self.structure.first_unit.tolist(), self.graph.groups, strict=False):
            for member in group.members:
                own = owners.setdefault((member.tensor, member.axis), np.full(len(member.units), -1, dtype=np.int64))
                own[member.units >= 0] = member.units[member.units >= 0] + first
        return owners

    def _report(self, keep: BoolArray, groups: Sequence[tuple[int, Group]]) -> CompactionReport:
        found: dict[str, dict[str, IntArray]] = {"constant": {}, "unread": {}, "dormant": {}, "bordered": {}}
        for first, group in groups:
            members = self._readers(group)
            unread = [self._is_unread(member, keep) for member in members]
            exact = [self._is_exact(m.tensor) | row for m, row in zip(members, unread, strict=True)]
            bordered = [self._is_bordered(m.tensor) | row for m, row in zip(members, exact, strict=True)]
            is_unread, is_exact, is_bordered = (_of_units(group, members, rows) for rows in (unread, exact, bordered))
            gone = ~keep[first : first + group.num_units]
            for name, units in (
                ("unread", gone & is_unread),
                ("constant", gone & is_exact & ~is_unread),
                ("dormant", gone & ~is_exact),
                ("bordered", ~gone & is_bordered & ~is_exact),
            ):
                if units.any():
                    found[name][group.name] = np.flatnonzero(units)
        return CompactionReport(**found, unclear=self.unclear)

    def _is_bordered(self, weight: str) -> BoolArray:
        inputs = self.inputs[weight]
        return inputs.per_position(inputs.within(0.0) & ~inputs.depends, self._length(weight))


def _of_units(group: Group, members: Sequence[Member], rows: Sequence[BoolArray]) -> BoolArray:
    """(units,) True where every position of a unit, in every member, is."""
    result = np.ones(group.num_units, dtype=bool)
    for member, row in zip(members, rows, strict=True):
        units = member.units[~row]
        result[units[units >= 0]] = False
    return result


def _indices(positions: IntArray, like: Tensor) -> Tensor:
    return torch.from_numpy(positions).to(like.device)
