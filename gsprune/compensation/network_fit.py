"""The fits of all consumers of one network: its dense forward samples their inputs, its pruned forward fits them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

from torch import Tensor

from gsprune.compensation.borrowed_tensors import borrow_tensors
from gsprune.compensation.consumer import Consumer, find_consumers
from gsprune.compensation.fitting import ConsumerFit
from gsprune.compensation.moments import Stack
from gsprune.compensation.patch_fit import PatchFit
from gsprune.compensation.patches import PatchSample, num_patch_rows
from gsprune.compensation.report import CompensationReport, ConsumerReport
from gsprune.compensation.sample import Sample
from gsprune.compensation.targets import dense_weights, find_targets
from gsprune.compensation.use_watcher import watch_calls
from gsprune.compensation.uses import Use
from gsprune.errors import RewriteError, failure_text
from gsprune.rewrite.adjustment import SmallerNetwork
from gsprune.rewrite.binding import Binding
from gsprune.rewrite.plan import RewritePlan
from gsprune.rewrite.session import Session
from gsprune.tracing.example import Example

__all__ = ["NetworkFit"]

# A consumer has at most this many samples over all batches, or as many per input, whichever is more. A flattened
# picture with fewer samples per kept input is compensated per channel, where every position is a sample. Measured on an
# agent of the Nature encoder (512 frames, 50 % removed, 512 inputs kept): KL 0.0004 instead of 0.016.
_MIN_SAMPLES = 8192
_SAMPLES_PER_INPUT = 8
# Numbers of batches after which a map is solved again; solving after each one would take longer than the forwards.
_SOLVED_AFTER = frozenset(4**power for power in range(16))


class NetworkFit:
    """Fits the consumers of a network while it runs; without `linear` only the constants.

    The model's modules run with the tensors of the first binding (the model or a follower), and the other bindings get
    its maps. The constructor runs the dense network, and `adjust` the pruned one.
    """

    def __init__(
        self,
        session: Session,
        plan: RewritePlan,
        bindings: Sequence[Binding],
        calls: Sequence[Example],
        linear: bool,
    ) -> None:
        self.session, self.plan, self.bindings, self.calls, self.linear = session, plan, bindings, calls, linear
        self._consumers = find_consumers(session.groups.graph, plan.kept)
        # (batch, weight) -> samples of its uses, in the order of the forward.
        self._samples: dict[tuple[int, str], list[Sample | PatchSample]] = {}
        self._patch_weights: dict[str, Tensor | None] = {}
        with borrow_tensors(session.model, bindings[0]):
            self._constants = self._consumers.watch(session.model, calls, self._record)
        self._fits: dict[str, ConsumerFit | PatchFit] = {}
        self._stack: Stack | None = None
        self._arrived: set[tuple[int, str]] = set()
        self._num_batches = Counter(weight for _, weight in self._samples)
        self._num_added: Counter[str] = Counter()

    def adjust(self, network: SmallerNetwork, stack: Stack | None) -> CompensationReport:
        """Run the pruned network, write its weights, and report.

        Raises:
            RewriteError: the calibration data makes inputs NaN or infinite, or the pruned network fails on it.
        """
        self._stack = stack
        for name, places in self._constants.items():
            consumer = self._with_enough_samples(self._consumers.found[name])
            targets = list(find_targets(network, self.bindings, consumer, places))
            if self._patch_weights.get(name) is not None:
                self._fits[name] = PatchFit(consumer, targets)
            else:
                self._fits[name] = ConsumerFit(consumer, targets, self.linear)
        with borrow_tensors(self.session.model, self.bindings[0]):
            try:
                watch_calls(self.session.model, self._consumers.axes, self.calls, self._fit)
            except ValueError as error:
                raise RewriteError(
                    "the pruned network fails on `calibration`, although the dense network does not:"
                    f" {failure_text(error.__cause__ or error)}; nothing was changed. Pass inputs of the calibration"
                    " data as `example_inputs`, on which the pruned network is checked"
                ) from error
        reports, skipped = [], self._consumers.skipped
        for name, fit in self._fits.items():
            if not self._num_added[name]:
                skipped[name] = (
                    "it reads other positions in the pruned network: another axis of its inputs is cut, too, or samples"
                    " are routed otherwise"
                )
                continue
            if self._num_added[name] < self._num_batches[name]:
                fit.solve(stack)
            fit.apply()  # again, after the last forward
            explained = fit.explained()
            if explained is None:
                skipped[name] = "no bias takes a constant"
            else:
                reports.append(ConsumerReport(name, explained))
        return CompensationReport(tuple(reports), skipped)

    def _record(self, batch: int, use: Use) -> None:
        """Sample the inputs of a use in the dense network."""
        samples = self._samples.setdefault((batch, use.weight), [])
        seed, is_first = (batch, len(samples)), not samples
        weights = self._weights_for_patches(use)
        if weights is not None:
            consumer = self._consumers.found[use.weight]
            max_rows = num_patch_rows(use, len(consumer.kept), weights, len(self.calls))
            samples.append(PatchSample(use, consumer, weights, max(max_rows, 1), seed, is_first))
            return
        inputs = use.inputs.shape[use.channel_axis]
        max_rows = max(_MIN_SAMPLES, _SAMPLES_PER_INPUT * inputs) // len(self.calls)
        samples.append(Sample(use, max(max_rows, 1), seed, is_first))

    def _weights_for_patches(self, use: Use) -> Tensor | None:
        """The weights that multiply the patches of a use; None if its first use is too expensive to fit on patches."""
        if use.weight not in self._patch_weights:
            weights = None
            if self.linear and use.kernel is not None:
                weights = dense_weights(self.session, self.plan, self.bindings, use.weight)
                num_kept = len(self._consumers.found[use.weight].kept)
                if num_patch_rows(use, num_kept, weights, len(self.calls)) == 0:
                    weights = None
            self._patch_weights[use.weight] = weights
        return self._patch_weights[use.weight]

    def _with_enough_samples(self, consumer: Consumer) -> Consumer:
        """Compensate a flattened picture per channel if there are too few samples for one column per input."""
        batches = [samples for (_, name), samples in self._samples.items() if name == consumer.weight]
        rows = [
            len(sample.dense)
            for samples in batches
            for sample in samples
            if isinstance(sample, Sample) and sample.is_of_matrix
        ]
        if consumer.by_channel is None or not rows or sum(rows) >= _SAMPLES_PER_INPUT * len(consumer.kept):
            return consumer
        return replace(consumer, columns=consumer.by_channel)

    def _fit(self, batch: int, use: Use) -> None:
        """Solve a consumer at its first use in a batch, before the operation of the pruned network reads the weight.

        If it reads other samples than in the dense network, because they are routed otherwise, the dense network's
        inputs are fitted. A batch in which it reads other positions is left out.
        """
        key = batch, use.weight
        if use.weight not in self._fits or key in self._arrived:
            return
        self._arrived.add(key)
        samples = self._samples.get(key, [])
        if not samples or not (samples[0].is_routed or samples[0].matches(use)):
            return
        fit = self._fits[use.weight]
        for sample in samples:
            fit.add(use, sample)
        if not fit.is_finite():
            raise RewriteError(
                f"the inputs of {use.weight!r} are NaN or infinite on `calibration`; nothing was changed. Pass"
                " inputs of the kind that the network works on"
            )
        self._num_added[use.weight] += 1
        count = self._num_added[use.weight]
        if count == self._num_batches[use.weight] or count in _SOLVED_AFTER:
            fit.solve(self._stack)
        fit.apply()
