"""What a pruning step did: widths, removed indices, costs, and what was left alone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from gsprune.tracing.graph import IntArray, Protected

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


@dataclass(frozen=True)
class PruneReport:
    """Result of `gsprune.prune_step`.

    Attributes:
        changed: whether anything was removed (in a dry run: would have been).
        sparsity: what was reached, in the unit of `target`: the fraction of first-seen channels, parameters or MACs gone.
        channel_sparsity: fraction of the first-seen channels of all groups that is gone.
        param_sparsity: fraction of the first-seen parameters that is gone.
        mac_sparsity: fraction of the first-seen MACs that is gone.
        groups: every prunable group.
        params_before: number of parameters before the step.
        params_after: and after it.
        macs_before: MACs per example (multiplications with weights) before the step.
        macs_after: and after it.
        protected: channels that are never removed, with the reason.
        notes: whatever else a user should know, e.g. that an optimizer's history was reset.
        example: where the traced example came from, and its shapes.
        seconds: duration of the step.
        dry_run: whether the network was left alone.
    """

    changed: bool
    sparsity: float
    channel_sparsity: float
    param_sparsity: float
    mac_sparsity: float
    groups: tuple[GroupChange, ...]
    params_before: int
    params_after: int
    macs_before: float
    macs_after: float
    protected: tuple[Protected, ...]
    notes: tuple[str, ...]
    example: str
    seconds: float
    dry_run: bool = False
    _removed: Mapping[str, Mapping[int, IntArray]] = field(default_factory=dict, repr=False)
    _shapes: Mapping[str, tuple[int, ...]] = field(default_factory=dict, repr=False)

    @cached_property
    def removed(self) -> dict[str, dict[int, Tensor]]:
        """Parameter or buffer name -> {axis: int64 tensor of removed indices, numbered as before this step}."""
        return {
            name: {axis: torch.from_numpy(positions) for axis, positions in axes.items()}
            for name, axes in self._removed.items()
        }

    def slice(self, name: str, tensor: Tensor, axis: int | None = None) -> Tensor:
        """What the step leaves of a tensor that the user holds outside of model and optimizer.

        Args:
            name: a parameter or buffer (a master weight, an own moment: a tensor of its shape before the step), or a
                group or layer (an activation, an LSTM state: one axis as long as the layer's width before the step).
            tensor: the tensor; not changed.
            axis: for a group or layer, which axis holds the channels; may be left out where only one fits.

        Returns:
            a new tensor, or `tensor` itself where the step took nothing from it.

        Raises:
            ValueError: the name is unknown or the shape does not fit.
        """
        if name in self._shapes:
            return self._slice_like(name, tensor)
        for group in self.groups:
            if name == group.name or name in group.layers:
                return self._slice_channels(group, tensor, axis)
        raise ValueError(
            f"`name` is {name!r}, which is neither a parameter, a buffer, a group nor a layer of a group of this report;"
            " list them with report.removed and report.groups"
        )

    def _slice_like(self, name: str, tensor: Tensor) -> Tensor:
        if tuple(tensor.shape) != self._shapes[name]:
            raise ValueError(
                f"`tensor` has shape {tuple(tensor.shape)}, but {name!r} had {self._shapes[name]} before this step"
            )
        for axis, positions in self._removed.get(name, {}).items():
            keep = np.setdiff1d(np.arange(tensor.shape[axis]), positions)
            tensor = tensor.index_select(axis, torch.from_numpy(keep).to(tensor.device))
        return tensor

    def _slice_channels(self, group: GroupChange, tensor: Tensor, axis: int | None) -> Tensor:
        if axis is None:
            fitting = [i for i, length in enumerate(tensor.shape) if length == group.before]
            if len(fitting) != 1:
                raise ValueError(
                    f"`tensor` of shape {tuple(tensor.shape)} has {len(fitting)} axes of the {group.before} channels that"
                    f" {group.name!r} had before this step; pass `axis=`"
                )
            axis = fitting[0]
        elif tensor.shape[axis] != group.before:
            raise ValueError(
                f"`tensor` has {tensor.shape[axis]} elements along axis {axis}, but {group.name!r} had {group.before}"
                " channels before this step"
            )
        if len(group.removed) == 0:
            return tensor
        keep = np.setdiff1d(np.arange(group.before), group.removed)
        return tensor.index_select(axis, torch.from_numpy(keep).to(tensor.device))

    def __str__(self) -> str:
        """A table of the groups and a line of totals."""
        width = max([len("group"), *(len(group.name) for group in self.groups)])
        lines = [f"{'group':<{width}}  before  after  first seen"]
        lines += [f"{g.name:<{width}}  {g.before:>6}  {g.after:>5}  {g.initial:>10}" for g in self.groups]
        verb = "would remove" if self.dry_run else "removed"
        gone = sum(group.before - group.after for group in self.groups)
        lines.append(
            f"{verb} {gone} channels; {self.channel_sparsity:.1%} of channels, {self.param_sparsity:.1%} of parameters and"
            f" {self.mac_sparsity:.1%} of MACs are gone"
        )
        lines.append(
            f"parameters {self.params_before:,} -> {self.params_after:,}, MACs {self.macs_before:,.0f} ->"
            f" {self.macs_after:,.0f} ({self.example}), {self.seconds * 1e3:.1f} ms"
        )
        lines += [f"protected: {p.channels} channels of {', '.join(p.names)}: {p.reason}" for p in self.protected]
        lines += list(self.notes)
        return "\n".join(lines)
