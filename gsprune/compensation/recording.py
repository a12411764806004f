"""The dense network's pass: samples of all consumers' inputs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from torch import Tensor

from gsprune.compensation.consumer import Consumer, find_consumers
from gsprune.compensation.patches import PatchSample, num_patch_rows
from gsprune.compensation.sample import Sample
from gsprune.compensation.targets import dense_weights
from gsprune.compensation.uses import Use
from gsprune.rewrite.binding import Binding
from gsprune.rewrite.plan import RewritePlan
from gsprune.rewrite.session import Session
from gsprune.tracing.example import Example

__all__ = ["Recording"]

# The samples of one consumer, over all batches: at least so many, and so many per input. A flattened picture of which
# there are fewer per kept input is compensated per channel, where every position is a sample. Measured on an agent of
# the Nature encoder (512 frames, 50 % removed, 512 inputs kept): KL 0.0004 instead of 0.016.
_MIN_SAMPLES = 8192
_SAMPLES_PER_INPUT = 8


class Recording:
    """Runs the dense network on the calibration data.

    The first of the bindings (the model or a follower) runs, and the others get its maps. With `with_patches`,
    convolutions may be fitted on patches.

    Attributes:
        constants: weight -> places in biases and running means that take its constant, in the order of the forward;
            only consumers that can be compensated.
        consumers: weight -> the consumer, of the same ones.
        skipped: weight -> reason, for the others.
        axes: weight -> input axis, for `watch_calls`.
        samples: (batch, weight) -> samples of its uses, in the order of the forward.
    """

    def __init__(
        self,
        session: Session,
        plan: RewritePlan,
        bindings: Sequence[Binding],
        calls: Sequence[Example],
        with_patches: bool,
    ) -> None:
        consumers = find_consumers(session.groups.graph, plan.kept)
        self.bindings, self.skipped, self.axes = bindings, consumers.skipped, consumers.axes
        self.samples: dict[tuple[int, str], list[Sample | PatchSample]] = {}
        self._session, self._plan, self._with_patches = session, plan, with_patches
        self._found, self._num_batches = consumers.found, len(calls)
        self._patch_weights: dict[str, Tensor | None] = {}
        self.constants = consumers.watch(session.model, calls, self._record)
        self.consumers = {name: self._with_enough_samples(consumers.found[name]) for name in self.constants}

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
            weights = None
            if self._with_patches and use.kernel is not None:
                weights = dense_weights(self._session, self._plan, self.bindings, use.weight)
                if num_patch_rows(use, len(self._found[use.weight].kept), weights, self._num_batches) == 0:
                    weights = None
            self._patch_weights[use.weight] = weights
        return self._patch_weights[use.weight]
