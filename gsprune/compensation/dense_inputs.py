"""Second moments of the consumers' inputs in the present network."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from gsprune.arrays import IntArray
from gsprune.compensation.consumer import Consumer, find_consumers
from gsprune.compensation.moments import Moments
from gsprune.compensation.sample import Sample
from gsprune.compensation.uses import Use
from gsprune.compensation.weights import as_matrices, in_groups
from gsprune.tracing.example import Example
from gsprune.tracing.graph import Graph

__all__ = ["DenseInputs", "find_dense_inputs"]

# A consumer has at most this many rows of inputs over all batches, or as many per input, whichever is more.
_MIN_ROWS = 8192
_ROWS_PER_INPUT = 4
# A spread below this share of an input's root mean square is rounding: the input is constant.
_ROUNDING = 1e-12


@dataclass
class DenseInputs:
    """The inputs of one consumer.

    Attributes:
        consumer: the weight; all of its inputs count as kept.
        groups: the number of convolution groups.
        transposed: True for a transposed convolution.
        moments: moments of the inputs, all of which are kept.
        has_constant: True if a bias or running mean takes a constant.
    """

    consumer: Consumer
    groups: int
    transposed: bool
    moments: Moments
    has_constant: bool = False

    @property
    def factors(self) -> Tensor:
        """(groups, rows, inputs) float64 R: R^T R is E[x x^T], or the covariance if a bias can take the means."""
        start = int(self.has_constant)  # below the first row, the mean of every column is subtracted
        factor = self.moments.factor[:, start:, 1:]
        sizes = self.moments.factor[:, :, 1:].square().sum(1, keepdim=True)
        is_constant = factor.square().sum(1, keepdim=True) <= _ROUNDING**2 * sizes
        return factor.masked_fill(is_constant, 0.0).div(self.moments.samples**0.5)

    @property
    def degrees_of_freedom(self) -> int:
        """The number of samples, less one if means are subtracted."""
        return self.moments.samples - int(self.has_constant)

    def matrices(self, weight: Tensor) -> Tensor:
        """(groups, outputs, inputs) float64 of the weight; a position of a kernel or of a picture is an output."""
        stacked = as_matrices(weight.detach().double(), self.consumer, self.groups, self.transposed)
        return stacked.transpose(2, 3).flatten(1, 2)

    def units(self, units: IntArray) -> list[IntArray]:
        """Per convolution group, the unit of each input; -1 for inputs of other groups of units.

        `units` has the unit of each position along the weight's input axis.
        """
        of_inputs = units[self.consumer.columns[:, 0]]
        return list(of_inputs.reshape(self.groups, -1)) if self.transposed else [of_inputs] * self.groups


def find_dense_inputs(
    model: nn.Module, graph: Graph, names: Collection[str], calls: Sequence[Example]
) -> tuple[dict[str, DenseInputs], dict[str, str]]:
    """Run the network on the calibration data, and compute the moments of the inputs of some groups' consumers.

    Returns:
        weight -> its inputs, and weight -> reason for those whose inputs cannot be described.
    """
    axes_of_groups: dict[str, dict[int, IntArray]] = {}
    for group in graph.groups:
        for member in group.members if group.name in names else ():
            axes_of_groups.setdefault(member.tensor, {})[member.axis] = np.arange(len(member.units))
    consumers = find_consumers(graph, axes_of_groups)
    inputs: dict[str, DenseInputs] = {}

    def add(batch: int, use: Use) -> None:
        consumer = consumers.found[use.weight]
        max_rows = max(_MIN_ROWS, _ROWS_PER_INPUT * use.inputs.shape[use.channel_axis]) // len(calls)
        sample = Sample(use, max(max_rows, 1), (batch,), is_first=True)
        rows = in_groups(sample.dense, consumer.columns, use.groups)
        if use.weight not in inputs:
            all_kept = torch.arange(rows.shape[2], device=rows.device).expand(len(rows), -1)
            moments = Moments(all_kept, 0)
            inputs[use.weight] = DenseInputs(consumer, use.groups, use.transposed, moments)
        inputs[use.weight].moments.add_lost(rows, rows[:, :, :0], use.padding)

    constants = consumers.watch(model, calls, add)
    for name, places in constants.items():
        inputs[name].has_constant = bool(places)
    return {name: inputs[name] for name in constants}, consumers.skipped
