"""The report of a pruning step: widths, removed indices, costs, protected channels."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from math import prod
from numbers import Integral

import numpy as np
import torch
from torch import Tensor

from gsprune.arrays import BoolArray, IntArray
from gsprune.checks import counted
from gsprune.compensation.removable import CompactionReport
from gsprune.compensation.report import CompensationReport, OutputChange
from gsprune.selection import Selection, Shortfall, dense_shapes, group_layers, shortfall
from gsprune.tracing.graph import Group, Protected
from gsprune.tracing.structure import Structure

__all__ = ["GroupChange", "PruneReport"]


@dataclass(frozen=True, slots=True)
class GroupChange:
    """One group in one step.

    Attributes:
        name: the group.
        before: width before the step.
        after: width after it.
        initial: first-seen width.
        removed: sorted int64 channel indices removed from the root layer, numbered as before the step.
        layers: names of the layers whose outputs are in the group.
    """

    name: str
    before: int
    after: int
    initial: int
    removed: IntArray
    layers: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class PruneReport:
    """Result of `gsprune.prune_step`. Properties are computed at the first access.

    Attributes:
        changed: True if channels were removed; in a dry run, if they would be.
        seconds: duration of the step.
        dry_run: True for a dry run, which leaves the network unchanged.
        notes: further information, for example that an optimizer's history was reset.
        compensation: how well the consumers of the removed channels were compensated; None without `compensate`.
        compaction: the channels that `gsprune.compact` removes, by reason; None for other steps.
        output_change: the change of the output with and without compensation, for dry runs with `compensate`.
    """

    changed: bool
    seconds: float
    dry_run: bool
    notes: tuple[str, ...]
    _before: Structure = field(repr=False)
    _after: Structure = field(repr=False)
    _kept_units: BoolArray = field(repr=False)
    _selection: Selection = field(repr=False)  # the request; its target is the unit of `sparsity`
    _initial_widths: Mapping[str, int] = field(repr=False)
    _ignored: frozenset[str] = field(repr=False)  # groups that the user excluded; they do not count as channels
    _refused: Mapping[str, str] = field(repr=False)  # group -> reason, where the user's code relies on the width
    _parameters: tuple[str, ...] = field(repr=False)  # canonical names of the tensors that are parameters
    compensation: CompensationReport | None = None
    compaction: CompactionReport | None = None
    output_change: OutputChange | None = None

    @cached_property
    def groups(self) -> tuple[GroupChange, ...]:
        """Every prunable group."""
        before, after = self._before.graph.groups, self._after.graph.groups
        return tuple(self._change(old, new.width) for old, new in zip(before, after, strict=True))

    def _change(self, group: Group, after: int) -> GroupChange:
        units = self._removed_units.get(group.name, np.empty(0, dtype=np.int64))
        if len(group.root.units) == group.width:
            units = np.flatnonzero(np.isin(group.root.units, units))
        layers = tuple(sorted(group_layers(group)))
        return GroupChange(group.name, group.width, after, self._initial_widths[group.name], units, layers)

    @cached_property
    def _removed_units(self) -> dict[str, IntArray]:
        removed = ~self._kept_units
        return {group.name: np.flatnonzero(removed[a:b]) for group, a, b in self._before.spans() if removed[a:b].any()}

    @cached_property
    def removed_positions(self) -> dict[str, dict[int, IntArray]]:
        """`removed` as sorted int64 arrays."""
        return self._before.graph.removed(self._removed_units)

    @cached_property
    def removed(self) -> dict[str, dict[int, Tensor]]:
        """Parameter or buffer name -> {axis: int64 tensor of removed indices, numbered as before this step}."""
        return {
            name: {axis: torch.from_numpy(positions) for axis, positions in axes.items()}
            for name, axes in self.removed_positions.items()
        }

    @cached_property
    def channel_sparsity(self) -> float:
        """The removed fraction of the first-seen channels. Ignored groups do not count."""
        groups = [group for group in self.groups if group.name not in self._ignored]
        return _fraction_removed(sum(group.initial for group in groups), sum(group.after for group in groups))

    @cached_property
    def param_sparsity(self) -> float:
        """The removed fraction of the first-seen parameters."""
        return _fraction_removed(self._params(self._dense_shapes), self.params_after)

    @cached_property
    def mac_sparsity(self) -> float:
        """The removed fraction of the first-seen MACs."""
        return _fraction_removed(replace(self._before.graph, shapes=self._dense_shapes).macs(), self.macs_after)

    @property
    def requested(self) -> float | Mapping[str, float]:
        """The requested sparsity."""
        return self._selection.sparsity

    @property
    def sparsity(self) -> float:
        """The sparsity reached, in the unit of `target`."""
        return {"channels": self.channel_sparsity, "params": self.param_sparsity, "macs": self.mac_sparsity}[
            self._selection.target
        ]

    @cached_property
    def shortfall(self) -> Shortfall | None:
        """The reason why the requested sparsity is not reached; None if it is reached (in whole channels)."""
        reasons = dict.fromkeys(self._ignored, "ignore")
        reasons |= dict.fromkeys(self._refused, "sizes written into the code")
        return shortfall(self._after, self._initial_widths, self._selection, reasons, lambda: self.sparsity)

    @cached_property
    def params_before(self) -> int:
        """Number of parameters before the step."""
        return self._params(self._before.graph.shapes)

    @cached_property
    def params_after(self) -> int:
        """Number of parameters after the step."""
        return self._params(self._after.graph.shapes)

    @cached_property
    def macs_before(self) -> float:
        """MACs per example (multiplications with weights) before the step."""
        return self._before.graph.macs()

    @cached_property
    def macs_after(self) -> float:
        """MACs per example after the step."""
        return self._after.graph.macs()

    @cached_property
    def protected(self) -> tuple[Protected, ...]:
        """Channels that are never removed, with the reason."""
        graph = self._before.graph
        widths = {group.name: group.width for group in graph.groups}
        refused = self._refused.items()
        return (*graph.protected, *[Protected(why, (name,), widths[name]) for name, why in refused if name in widths])

    @property
    def example(self) -> str:
        """Origin and shapes of the traced example."""
        graph = self._before.traced
        return f"example {graph.example_origin}: {' x '.join(str(shape) for shape in graph.example_shapes)}"

    @cached_property
    def _dense_shapes(self) -> dict[str, tuple[int, ...]]:
        return dense_shapes(self._before.graph, self._initial_widths)

    def _params(self, shapes: Mapping[str, tuple[int, ...]]) -> int:
        return sum(prod(shapes[name]) for name in self._parameters)

    def slice(self, name: str, tensor: Tensor, axis: int | None = None) -> Tensor:
        """Slice a tensor outside of the model and the optimizer as this step sliced the model.

        Args:
            name: a parameter or buffer, whose shape before the step `tensor` has (a master weight, a moment); or a
                group or layer, whose width before the step one axis has (an activation, an LSTM state).
            tensor: the tensor; not changed.
            axis: the channel axis, for a group or layer. Needed only if several axes have the layer's width.

        Returns:
            a new tensor, or `tensor` itself if the step removes nothing from it.

        Raises:
            TypeError: an argument has a wrong type.
            ValueError: the name is unknown or the shape does not fit.
        """
        if not isinstance(name, str):
            raise TypeError(f"`name` must be the name of a tensor, a group or a layer, got {type(name).__name__}")
        if not isinstance(tensor, Tensor):
            raise TypeError(f"`tensor` must be a torch.Tensor, got {type(tensor).__name__}")
        if axis is not None and (isinstance(axis, bool) or not isinstance(axis, Integral)):
            raise TypeError(f"`axis` must be a whole number or None, got {axis!r}")
        if axis is not None and not -tensor.ndim <= axis < tensor.ndim:
            raise ValueError(f"`axis` must be in [{-tensor.ndim}, {tensor.ndim}) for `tensor`, got {axis}")
        if name in self._before.graph.shapes:
            return self._slice_tensor(name, tensor)
        for group in self.groups:
            if name == group.name or name in group.layers:
                return self._slice_channels(group, tensor, axis)
        raise ValueError(
            f"`name` is {name!r}, which is neither a parameter, a buffer, a group nor a layer of a group of this"
            " report; list them with report.removed and report.groups"
        )

    def _slice_tensor(self, name: str, tensor: Tensor) -> Tensor:
        shape = self._before.graph.shapes[name]
        if tuple(tensor.shape) != shape:
            raise ValueError(f"`tensor` has shape {tuple(tensor.shape)}, but {name!r} had {shape} before this step")
        for axis, positions in self.removed_positions.get(name, {}).items():
            tensor = _without(tensor, axis, positions)
        return tensor

    def _slice_channels(self, group: GroupChange, tensor: Tensor, axis: int | None) -> Tensor:
        # A recurrent layer's width counts its gates. Its state has one element per hidden unit.
        units = next(each.num_units for each in self._before.graph.groups if each.name == group.name)
        removed = {units: self._removed_units.get(group.name, np.empty(0, np.int64)), group.before: group.removed}
        lengths = " or ".join(str(length) for length in sorted(removed))
        if axis is None:
            fitting = [i for i, length in enumerate(tensor.shape) if length in removed]
            if len(fitting) != 1:
                raise ValueError(
                    f"`tensor` of shape {tuple(tensor.shape)} has {len(fitting)} axes of the {lengths} channels"
                    f" that {group.name!r} had before this step; pass `axis=`"
                )
            axis = fitting[0]
        elif tensor.shape[axis] not in removed:
            raise ValueError(
                f"`tensor` has {tensor.shape[axis]} elements along axis {axis}, but {group.name!r} had {lengths}"
                " channels before this step"
            )
        positions = removed[tensor.shape[axis]]
        return _without(tensor, axis, positions) if len(positions) else tensor

    def __str__(self) -> str:
        """A table of the groups and a line of totals."""
        width = max([len("group"), *(len(group.name) for group in self.groups)])
        lines = [f"{'group':<{width}}  before  after  first seen"]
        lines += [f"{g.name:<{width}}  {g.before:>6}  {g.after:>5}  {g.initial:>10}" for g in self.groups]
        verb = "would remove" if self.dry_run else "removed"
        total = sum(group.before - group.after for group in self.groups)
        lines.append(
            f"{verb} {counted(total, 'channel')}; {self.channel_sparsity:.1%} of channels,"
            f" {self.param_sparsity:.1%} of parameters and {self.mac_sparsity:.1%} of MACs are removed in total"
        )
        lines.append(
            f"parameters {self.params_before:,} -> {self.params_after:,}, MACs {self.macs_before:,.0f} ->"
            f" {self.macs_after:,.0f} ({self.example}), {self.seconds * 1e3:.1f} ms"
        )
        lines += [
            f"protected: {counted(p.channels, 'channel')} of {', '.join(p.names)}: {p.reason}" for p in self.protected
        ]
        copies = self._before.traced.copies.items()
        lines += [f"copy: {copy} loses the channels that {original} loses" for copy, original in copies]
        lines += [str(self.shortfall)] if self.shortfall is not None else []
        lines += list(self.notes)
        return "\n".join(lines)


def _without(tensor: Tensor, axis: int, positions: IntArray) -> Tensor:
    keep = np.setdiff1d(np.arange(tensor.shape[axis]), positions)
    return tensor.index_select(axis, torch.from_numpy(keep).to(tensor.device))


def _fraction_removed(initial: float, after: float) -> float:
    return 1.0 - after / initial if initial else 0.0
