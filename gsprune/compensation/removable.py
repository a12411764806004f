"""Units whose removal changes nothing: constant units, and units that no layer reads."""

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
        without_bias: constants that stay, because no bias behind a weight that reads them takes them.
        unclear: weight -> reason, for weights whose units stay because they may be read in an unknown way.
    """

    constant: Mapping[str, IntArray]
    unread: Mapping[str, IntArray]
    dormant: Mapping[str, IntArray]
    bordered: Mapping[str, IntArray]
    without_bias: Mapping[str, IntArray]
    unclear: Mapping[str, str]

    def __str__(self) -> str:
        """One line."""
        numbers = [
            f"{sum(map(len, units.values()))} {name}"
            for name, units in (("constant", self.constant), ("unread", self.unread), ("dormant", self.dormant))
        ]
        text = f"compacted: {', '.join(numbers)}"
        for units, reason in (
            (self.bordered, "a zero-padded convolution reads them"),
            (self.without_bias, "no bias takes their constants"),
        ):
            if units:
                count = counted(sum(map(len, units.values())), "constant unit")
                text += f"; {count} of {', '.join(units)} must stay: {reason}"
        if self.unclear:
            reasons = ", ".join(f"{weight} ({reason})" for weight, reason in self.unclear.items())
            text += f"; cannot examine the channels of {reasons}"
        return text


class RemovableUnits:
    """Finds the units that can be removed without changing the output.

    `calibration` are inputs on which units may be constant; None looks at the weights alone. `tolerance` is the spread
    of a dormant unit's values, relative to the largest input of the layer that reads it.

    Attributes:
        inputs: weight -> its inputs on the example, for weights that read channels of groups.
        unclear: weight -> reason, for weights whose channels may be read in another way, too.
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
        self.inputs, self.unclear = find_read_inputs(model, self.graph, [example], for_any_input=True)
        self._seen: dict[str, ReadInputs] = {}
        if calibration is not None:
            self._seen, unclear = find_read_inputs(model, self.graph, calibration, for_any_input=False)
            self.unclear |= unclear
        for name in self.inputs.keys() & self._seen.keys():
            if self._seen[name].places != self.inputs[name].places:  # other operations run on the calibration data
                self._seen[name].places = self.inputs[name].places = ()
        self._tolerance = tolerance
        # Weight -> (positions,) True where it reads a constant that its biases can take.
        self._constant = {name: each.per_position(each.removable(0.0)) for name, each in self.inputs.items()}
        self._dormant = {name: each.per_position(each.removable(tolerance)) for name, each in self._seen.items()}

    def choose(self, frozen: frozenset[str]) -> tuple[BoolArray, CompactionReport]:
        """The units to keep, of all groups, and the reasons for the others.

        One unit of every group stays, and so do all units of the groups in `frozen`. Units that only removed units read
        can be removed, too, and so on.
        """
        keep = np.ones(self.structure.num_units, dtype=bool)
        groups = [(first, group) for first, group in self._groups() if group.name not in frozen]
        while True:
            kept_before = keep.copy()
            for first, group in groups:
                span = slice(first, first + group.num_units)
                removed = kept_before[span] & self._removable(group, kept_before)
                if not (kept_before[span] & ~removed).any():
                    removed[np.flatnonzero(kept_before[span])[:1]] = False
                keep[span] &= ~removed
            if (keep == kept_before).all():
                return keep, self._report(keep, groups)

    def constants(self, weight: str) -> Tensor:
        """(channels,) float64, the constants that a weight reads and its biases can take; 0 for other channels."""
        inputs, seen = self.inputs[weight], self._seen.get(weight)
        values = torch.zeros_like(inputs.low)
        if seen is not None:
            values = torch.where(seen.removable(self._tolerance), seen.middle, values)
        return torch.where(inputs.removable(0.0), inputs.middle, values)

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
        """(units,) True where a unit is constant, dormant, or only read by weights of zero."""
        rows = {m.tensor: self._is_unread(m, keep) | self._constant[m.tensor] for m in self._readers(group)}
        return self._units_where(group, {name: row | self._dormant.get(name, False) for name, row in rows.items()})

    def _is_unread(self, member: Member, keep: BoolArray) -> BoolArray:
        """(positions,) True where the weight is zero in all rows that stay."""
        weight, structure = self._tensors[member.tensor].detach().abs(), self.structure
        for axis, vector in structure.of_axis[member.tensor]:
            if axis != member.axis:
                units = structure.ids[structure.starts[vector] : structure.starts[vector + 1]]
                rows = np.flatnonzero(np.append(keep, True)[units])
                weight = weight.index_select(axis, torch.from_numpy(rows).to(weight.device))
        result: BoolArray = (weight.movedim(member.axis, 0).flatten(1) == 0).all(1).cpu().numpy()
        return result

    def _report(self, keep: BoolArray, groups: Sequence[tuple[int, Group]]) -> CompactionReport:
        names = ("constant", "unread", "dormant", "bordered", "without_bias")
        found: dict[str, dict[str, IntArray]] = {name: {} for name in names}
        for first, group in groups:
            unread = {member.tensor: self._is_unread(member, keep) for member in self._readers(group)}
            constant = {name: row | self._constant[name] for name, row in unread.items()}
            pads = {name: row | (self._is_kept(name) & self.inputs[name].pads) for name, row in constant.items()}
            kept = {name: row | self._is_kept(name) for name, row in constant.items()}
            is_unread, is_constant, is_bordered, is_kept = (
                self._units_where(group, rows) for rows in (unread, constant, pads, kept)
            )
            removed = ~keep[first : first + group.num_units]
            for name, units in (
                ("unread", removed & is_unread),
                ("constant", removed & is_constant & ~is_unread),
                ("dormant", removed & ~is_constant),
                ("bordered", ~removed & is_bordered & ~is_constant),
                ("without_bias", ~removed & is_kept & ~is_bordered),
            ):
                if units.any():
                    found[name][group.name] = np.flatnonzero(units)
        return CompactionReport(**found, unclear=self.unclear)

    def _is_kept(self, weight: str) -> BoolArray:
        """(positions,) True where the weight reads a constant, which its biases may not be able to take."""
        return self.inputs[weight].per_position(self.inputs[weight].is_constant(0.0))

    def _units_where(self, group: Group, rows: Mapping[str, BoolArray]) -> BoolArray:
        """(units,) True if `rows` is True at every position of the unit in every weight that reads it."""
        result = np.ones(group.num_units, dtype=bool)
        for member in self._readers(group):
            units = member.units[~rows[member.tensor]]
            result[units[units >= 0]] = False
        return result
