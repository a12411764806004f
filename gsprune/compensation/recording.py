"""The dense network's pass: samples of all consumers' inputs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial

from torch import Tensor, nn

from gsprune.arrays import IntArray
from gsprune.compensation.consumer import Consumer, find_consumers, find_output_axes
from gsprune.compensation.patches import PatchSample, num_patch_rows
from gsprune.compensation.sample import Sample
from gsprune.compensation.uses import ConstantPlace, Use, UseWatcher
from gsprune.rewrite.tensors import canonical_tensors
from gsprune.tracing.example import Example, first_outputs
from gsprune.tracing.graph import Graph
from gsprune.tracing.plain_operations import plain_operations
from gsprune.tracing.temporary_eval import temporary_eval

__all__ = ["MAX_COLUMNS", "Recording", "common_constants", "watch_calls"]

# A longer input axis (a flattened picture) is compensated per channel: its moments would take 128 MB and more.
MAX_COLUMNS = 4096
# The samples of one consumer, over all batches: at least so many, and so many per input. A flattened picture of which
# there are fewer per kept input is compensated per channel, where every position is a sample. Measured on an agent of
# the Nature encoder (512 frames, 50 % removed, 512 inputs kept): KL 0.0004 instead of 0.016.
_MIN_SAMPLES = 8192
_SAMPLES_PER_INPUT = 8


class Recording:
    """Runs the dense network on the calibration data.

    Args:
        model: the dense network.
        graph: its groups.
        kept: tensor -> {axis: positions that stay}, of everything that is cut.
        calls: the calibration data.
        weights_of: name of a convolution's weight -> (outputs, inputs, kernel) what is read off its patches, see
            `PatchSample`; None samples no patches.

    Attributes:
        consumers: weight -> the consumer, in the order of the forward; only those that can be compensated.
        skipped: weight -> reason, for the others.
        constants: weight -> places in biases and running means that take its constant.
        samples: (batch, weight) -> samples of its uses, in the order of the forward.
    """

    def __init__(
        self,
        model: nn.Module,
        graph: Graph,
        kept: Mapping[str, Mapping[int, IntArray]],
        calls: Sequence[Example],
        weights_of: Callable[[str], Tensor] | None,
    ) -> None:
        found, self.skipped = find_consumers(graph, kept, MAX_COLUMNS)
        consumers = self._found = {consumer.weight: consumer for consumer in found}
        self.axes = {**find_output_axes(graph, kept), **{name: c.axis for name, c in consumers.items()}}
        self.samples: dict[tuple[int, str], list[Sample | PatchSample]] = {}
        self._num_batches, self._weights_of = len(calls), weights_of
        self._patch_weights: dict[str, Tensor | None] = {}
        watchers = watch_calls(model, self.axes, calls, self._record)
        used = dict.fromkeys(name for _, name in self.samples)
        for name in consumers:
            reading = [watcher.unsupported[name] for watcher in watchers if name in watcher.unsupported]
            if reading:
                self.skipped[name] = f"{reading[0]} reads it"
            elif name not in used:
                self.skipped[name] = "the calibration data does not reach it"
        for name in used:
            if name not in consumers:
                self.skipped[name] = "it reads the channels that it makes"
        self.consumers = {
            name: self._with_enough_samples(consumers[name])
            for name in used
            if name in consumers and name not in self.skipped
        }
        self.constants = {name: common_constants(watchers, name) for name in self.consumers}

    def samples_patches(self, weight: str) -> bool:
        """True if a weight's samples are patches."""
        return self._patch_weights.get(weight) is not None

    def _with_enough_samples(self, consumer: Consumer) -> Consumer:
        """Compensate a flattened picture per channel if there are too few samples for one column per input."""
        batches = [samples for (_, name), samples in self.samples.items() if name == consumer.weight]
        rows = [
            len(sample.dense)
            for samples in batches
            for sample in samples
            if isinstance(sample, Sample) and sample.is_of_matrix
        ]
        if consumer.by_channel is None or not rows or sum(rows) >= _SAMPLES_PER_INPUT * len(consumer.kept):
            return consumer
        return replace(consumer, columns=consumer.by_channel)

    def _record(self, batch: int, use: Use) -> None:
        samples = self.samples.setdefault((batch, use.weight), [])
        seed, is_first = (batch, len(samples)), not samples
        weights = self._weights_for_patches(use)
        if weights is not None:
            consumer = self._found[use.weight]
            most = num_patch_rows(use, len(consumer.kept), weights, self._num_batches)
            samples.append(PatchSample(use, consumer, weights, max(most, 1), seed, is_first))
            return
        inputs = use.inputs.shape[use.channel_axis]
        most = max(_MIN_SAMPLES, _SAMPLES_PER_INPUT * inputs) // self._num_batches
        samples.append(Sample(use, max(most, 1), seed, is_first))

    def _weights_for_patches(self, use: Use) -> Tensor | None:
        """The weights that multiply the patches of a use; None if its first use is too expensive to fit on patches."""
        if use.weight not in self._patch_weights:
            consumer, weights = self._found.get(use.weight), None
            if consumer is not None and self._weights_of is not None and use.kernel is not None:
                weights = self._weights_of(use.weight)
                if num_patch_rows(use, len(consumer.kept), weights, self._num_batches) == 0:
                    weights = None
            self._patch_weights[use.weight] = weights
        return self._patch_weights[use.weight]


def watch_calls(
    model: nn.Module, axes: Mapping[str, int], calls: Sequence[Example], on_use: Callable[[int, Use], None]
) -> list[UseWatcher]:
    """Call the model on every batch in eval mode, and report the uses of weights.

    Args:
        model: the network.
        axes: weight -> input axis.
        calls: one per batch.
        on_use: called with the number of the batch and each use, before its operation runs.

    Raises:
        ValueError: the forward fails on a batch.
    """
    watchers = []
    for batch, call in enumerate(calls):
        watcher = UseWatcher(canonical_tensors(model), axes, partial(on_use, batch))
        with temporary_eval(model), plain_operations(model), watcher:
            first_outputs(model, call, "calibration")
        watchers.append(watcher)
    return watchers


def common_constants(watchers: Sequence[UseWatcher], weight: str) -> tuple[ConstantPlace, ...]:
    """The places that take a constant in every batch that uses the weight; none if batches differ."""
    places = {watcher.constants_of(weight) for watcher in watchers if weight in watcher.constants}
    return places.pop() if len(places) == 1 else ()
