"""Consumers of removed channels: the weights whose input axis is cut."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from torch import nn

from gsprune.arrays import IntArray
from gsprune.compensation.constant_places import ConstantPlace
from gsprune.compensation.use_watcher import common_constants, watch_calls
from gsprune.compensation.uses import Use
from gsprune.tracing.example import Example
from gsprune.tracing.graph import Graph

__all__ = ["Consumer", "Consumers", "find_consumers"]

# A longer input axis (a flattened picture) is compensated per channel: its moments would take 128 MB and more.
MAX_COLUMNS = 4096


@dataclass(frozen=True)
class Consumer:
    """A weight that reads channels of which some are removed.

    Attributes:
        weight: canonical name of the weight.
        axis: its input axis.
        kept: sorted positions along the axis that stay.
        columns: (channels, positions) int64: the positions along the axis that belong to each channel. One position
            per channel, unless the axis is a flattened picture that is compensated per channel.
        by_channel: `columns` for a compensation per channel; None if the axis is no flattened picture.
    """

    weight: str
    axis: int
    kept: IntArray
    columns: IntArray
    by_channel: IntArray | None = None

    @property
    def kept_channels(self) -> IntArray:
        """Rows of `columns` that stay."""
        return np.flatnonzero(np.isin(self.columns[:, 0], self.kept))

    @property
    def kept_columns(self) -> IntArray:
        """`columns` of the channels that stay, as positions along the axis after the removal."""
        return np.searchsorted(self.kept, self.columns[self.kept_channels]).astype(np.int64)


@dataclass(frozen=True)
class Consumers:
    """The consumers of a removal.

    Attributes:
        found: weight -> the consumer.
        skipped: weight -> reason, for consumers that cannot be compensated; `watch` adds to it.
        axes: weight -> the axis to watch: that of its inputs, or that of its outputs if only these are cut. A weight
            that also reads channels along its outputs cannot follow a map.
        mixed: tensors with channels that are removed and that are combined without a weight.
    """

    found: dict[str, Consumer]
    skipped: dict[str, str]
    axes: dict[str, int]
    mixed: frozenset[str]

    def watch(
        self, model: nn.Module, calls: Sequence[Example], on_use: Callable[[int, Use], None]
    ) -> dict[str, tuple[ConstantPlace, ...]]:
        """Run the network on every batch, and call `on_use(batch, use)` before each use of a consumer.

        Returns:
            weight -> places in biases and running means that take its constant, in the order of the forward; only
            consumers that can be compensated.
        """
        reached: dict[str, None] = {}

        def note_use(batch: int, use: Use) -> None:
            if use.weight in self.found:
                reached[use.weight] = None
                on_use(batch, use)
            elif not use.is_depthwise:
                self.skipped[use.weight] = "it reads the channels that it makes"

        watchers = watch_calls(model, self.axes, calls, note_use)
        for name in self.found:
            readers = [watcher.unsupported[name] for watcher in watchers if name in watcher.unsupported]
            if readers:
                self.skipped[name] = f"{readers[0]} reads it"
            elif name not in reached:
                self.skipped[name] = "the calibration data does not reach it"
        for watcher in watchers:
            for name in sorted(self.mixed & watcher.computed.keys()):
                self.skipped.setdefault(name, f"the weight of {watcher.computed[name]} is computed from it")
        return {name: common_constants(watchers, name) for name in reached if name not in self.skipped}


def find_consumers(graph: Graph, kept: Mapping[str, Mapping[int, IntArray]]) -> Consumers:
    """The consumers of a removal, which `kept` describes: tensor -> {axis: sorted positions that stay}."""
    units: dict[tuple[str, int], IntArray] = {}
    axes: dict[str, int] = {}
    mixed: set[str] = set()
    for index, group in enumerate(graph.groups):
        for member in group.members:
            positions = kept.get(member.tensor, {}).get(member.axis)
            if positions is None:
                continue
            if group.name in graph.mixed:
                mixed.add(member.tensor)
            if member.role == "out":
                axes[member.tensor] = member.axis
            elif not graph.is_copy(member.tensor):
                owners = units.setdefault((member.tensor, member.axis), np.full((len(member.units), 2), -1, np.int64))
                owners[member.units >= 0] = [[index, unit] for unit in member.units[member.units >= 0]]
    found, skipped = {}, {}
    for (tensor, axis), owners in units.items():
        by_channel = _by_channel(owners)
        columns = by_channel if len(owners) > MAX_COLUMNS else np.arange(len(owners), dtype=np.int64)[:, None]
        if columns is None:
            skipped[tensor] = f"it has {len(owners)} inputs, more than {MAX_COLUMNS}, and they are no flattened picture"
        else:
            found[tensor] = Consumer(tensor, axis, kept[tensor][axis], columns, by_channel)
            axes[tensor] = axis
    return Consumers(found, skipped, axes, frozenset(mixed))


def _by_channel(owners: IntArray) -> IntArray | None:
    """`Consumer.by_channel` of an axis: None unless its channels have equally many positions, two or more.

    Above `MAX_COLUMNS` channels it is None, too. `owners` is (positions, 2), the group and the unit of each position.
    """
    _, inverse, counts = np.unique(owners, axis=0, return_inverse=True, return_counts=True)
    if counts.min() != counts.max() or counts[0] == 1 or len(counts) > MAX_COLUMNS:
        return None
    return np.argsort(inverse.reshape(-1), kind="stable").reshape(len(counts), -1)
