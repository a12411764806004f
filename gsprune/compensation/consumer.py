"""Consumers of removed channels: the weights whose input axis is cut."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from gsprune.arrays import IntArray
from gsprune.tracing.graph import Graph

__all__ = ["Consumer", "find_consumers", "find_output_axes"]


@dataclass(frozen=True)
class Consumer:
    """A weight that reads channels of which some are removed.

    Attributes:
        weight: canonical name of the weight.
        axis: its input axis.
        kept: sorted positions along the axis that stay.
        columns: (channels, positions) int64: the positions along the axis that belong to each channel. One position
            per channel, unless the axis is a flattened picture that is compensated per channel.
        by_channel: `columns` for a compensation per channel, where channels have equally many positions, two or more;
            else None.
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


def find_consumers(
    graph: Graph, kept: Mapping[str, Mapping[int, IntArray]], max_columns: int
) -> tuple[list[Consumer], dict[str, str]]:
    """The consumers of a removal.

    Args:
        graph: the groups of the network before the removal.
        kept: tensor -> {axis: sorted positions that stay}, of the axes that lose some.
        max_columns: above so many columns, an axis is compensated per channel.

    Returns:
        the consumers, and weight -> reason for those that cannot be compensated.
    """
    units: dict[tuple[str, int], IntArray] = {}
    for index, group in enumerate(graph.groups):
        for member in group.members:
            positions = kept.get(member.tensor, {}).get(member.axis)
            if member.role == "in" and positions is not None and not graph.is_copy(member.tensor):
                owners = units.setdefault((member.tensor, member.axis), np.full((len(member.units), 2), -1, np.int64))
                owners[member.units >= 0] = [[index, unit] for unit in member.units[member.units >= 0]]
    consumers, left = [], {}
    for (tensor, axis), owners in units.items():
        by_channel = _by_channel(owners, max_columns)
        columns = by_channel if len(owners) > max_columns else np.arange(len(owners), dtype=np.int64)[:, None]
        if columns is None:
            left[tensor] = f"it has {len(owners)} inputs, more than {max_columns}, and they are no flattened picture"
        else:
            consumers.append(Consumer(tensor, axis, kept[tensor][axis], columns, by_channel))
    return consumers, left


def find_output_axes(graph: Graph, kept: Mapping[str, Mapping[int, IntArray]]) -> dict[str, int]:
    """Weight -> the axis of its outputs, where that is cut: one that also reads channels there cannot follow a map."""
    return {
        member.tensor: member.axis
        for group in graph.groups
        for member in group.members
        if member.role == "out" and member.axis in kept.get(member.tensor, {})
    }


def _by_channel(owners: IntArray, max_channels: int) -> IntArray | None:
    """Positions of each channel; None where an axis does not hold equally many of every channel, and more than one.

    Args:
        owners: (positions, 2), the group and the unit of each position.
        max_channels: the most channels.
    """
    _, inverse, counts = np.unique(owners, axis=0, return_inverse=True, return_counts=True)
    if counts.min() != counts.max() or counts[0] == 1 or len(counts) > max_channels:
        return None
    return np.argsort(inverse.reshape(-1), kind="stable").reshape(len(counts), -1)
