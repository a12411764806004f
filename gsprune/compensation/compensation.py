"""Compensation of removed channels, as an adjustment of a pruning step."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from functools import partial
from typing import Literal

from torch import Tensor

from gsprune.compensation.fitting import ConsumerFit
from gsprune.compensation.moments import Stack
from gsprune.compensation.patch_fit import PatchFit
from gsprune.compensation.recording import Recording, watch_calls
from gsprune.compensation.report import CompensationReport, ConsumerReport
from gsprune.compensation.targets import dense_aliases, dense_weights, find_targets
from gsprune.compensation.uses import Use
from gsprune.errors import RewriteError
from gsprune.rewrite.adjustment import SmallerNetwork
from gsprune.rewrite.plan import RewritePlan
from gsprune.rewrite.session import Session
from gsprune.tracing.example import Example

__all__ = ["Compensation", "CompensationMode"]

CompensationMode = Literal["bias", "linear"]

# Numbers of batches after which a map is solved again; solving after each one would take longer than the forwards.
_SOLVED_AFTER = frozenset(4**power for power in range(16))


class Compensation:
    """Lets the consumers of removed channels read them off the channels that stay (He et al. 2017, arXiv:1707.06168).

    The dense network runs once and samples of every consumer's inputs x are kept. Then the pruned network runs. When
    it arrives at a consumer with inputs z, the ridge problem x = A z + c is solved, the weight becomes W A, W c goes
    into its bias, and the forward goes on with them. So errors do not add up along the depth.

    With several batches, each one adds to the moments, and those whose number is a power of four and the last one solve
    anew. A weight with several uses gets one map; the uses behind its first one are fitted on the dense network's
    inputs.

    Args:
        calls: the calibration data, one call per batch.
        mode: "linear", or "bias" for the constants alone (FLAP, arXiv:2312.11983).
        stack: gathers the moments of the ranks that train the network together, on as many batches each.

    Attributes:
        report: the result of the last step; None before.
    """

    def __init__(self, calls: Sequence[Example], mode: CompensationMode, stack: Stack | None = None) -> None:
        self.calls, self.mode, self.stack = calls, mode, stack
        self.report: CompensationReport | None = None
        self._recording: Recording | None = None
        self._dense: dict[int, Tensor] = {}

    def observe(self, session: Session, plan: RewritePlan) -> None:
        """Run the dense network."""
        self._dense = dense_aliases(plan)
        weights_of = partial(dense_weights, session, plan, dense_tensors=self._dense)
        self._recording = Recording(
            session.model, session.groups.graph, plan.kept, self.calls, weights_of if self.mode == "linear" else None
        )

    def adjust(self, network: SmallerNetwork) -> Sequence[str]:
        """Run the pruned network and write its weights.

        Raises:
            RewriteError: the calibration data makes inputs NaN or infinite.
        """
        recording = self._recording
        assert recording is not None
        fits: dict[str, ConsumerFit | PatchFit] = {}
        for name, consumer in recording.consumers.items():
            targets = list(find_targets(network, consumer, recording.constants[name], self._dense))
            if recording.samples_patches(name):
                fits[name] = PatchFit(consumer, targets)
            else:
                fits[name] = ConsumerFit(consumer, targets, self.mode == "linear")
        skipped = dict(recording.skipped)
        arrivals: Counter[tuple[int, str]] = Counter()
        num_batches = Counter(weight for _, weight in recording.samples)
        num_added: Counter[str] = Counter()

        def fit(batch: int, use: Use) -> None:
            """Solve a consumer at its first use in a batch, before the operation reads the weight."""
            arrivals[batch, use.weight] += 1
            samples = recording.samples.get((batch, use.weight), [])
            if use.weight not in fits or arrivals[batch, use.weight] > 1:
                return
            if not samples or not samples[0].matches(use):
                skipped[use.weight] = "channels of another axis of its inputs are removed, too"
                del fits[use.weight]
                return
            for sample in samples:
                fits[use.weight].add(use, sample)
            if not fits[use.weight].is_finite():
                raise RewriteError(
                    f"the inputs of {use.weight!r} are NaN or infinite on `calibration`; nothing was changed. Pass"
                    " inputs of the kind that the network works on"
                )
            num_added[use.weight] += 1
            count = num_added[use.weight]
            if count == num_batches[use.weight] or count in _SOLVED_AFTER:
                fits[use.weight].write(self.stack)
            else:
                fits[use.weight].apply()

        watch_calls(network.session.model, recording.axes, self.calls, fit)
        for each in fits.values():
            each.apply()
        self.report = self._report(fits, skipped)
        self._recording, self._dense = None, {}
        return (str(self.report),)

    def _report(self, fits: dict[str, ConsumerFit | PatchFit], skipped: dict[str, str]) -> CompensationReport:
        reports = []
        for name, fit in fits.items():
            explained = fit.explained()
            if explained is None:
                skipped[name] = "no bias takes a constant"
            else:
                reports.append(ConsumerReport(name, explained))
        return CompensationReport(tuple(reports), skipped)
