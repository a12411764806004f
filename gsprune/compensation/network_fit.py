"""All consumers of one network during a step: its pruned forward fits them one after another."""

from __future__ import annotations

from collections import Counter

from gsprune.compensation.fitting import ConsumerFit
from gsprune.compensation.moments import Stack
from gsprune.compensation.patch_fit import PatchFit
from gsprune.compensation.recording import Recording
from gsprune.compensation.report import CompensationReport, ConsumerReport
from gsprune.compensation.targets import find_targets
from gsprune.compensation.uses import Use
from gsprune.errors import RewriteError
from gsprune.rewrite.adjustment import SmallerNetwork

__all__ = ["NetworkFit"]

# Numbers of batches after which a map is solved again; solving after each one would take longer than the forwards.
_SOLVED_AFTER = frozenset(4**power for power in range(16))


class NetworkFit:
    """Fits the consumers of a network while it runs; without `linear` only the constants."""

    def __init__(
        self,
        network: SmallerNetwork,
        recording: Recording,
        linear: bool,
        stack: Stack | None,
    ) -> None:
        self.recording, self.stack = recording, stack
        self._fits: dict[str, ConsumerFit | PatchFit] = {}
        for name, consumer in recording.consumers.items():
            targets = list(find_targets(network, recording.bindings, consumer, recording.constants[name]))
            if recording.samples_patches(name):
                self._fits[name] = PatchFit(consumer, targets)
            else:
                self._fits[name] = ConsumerFit(consumer, targets, linear)
        self._skipped = dict(recording.skipped)
        self._arrived: set[tuple[int, str]] = set()
        self._num_batches = Counter(weight for _, weight in recording.samples)
        self._num_added: Counter[str] = Counter()

    def on_use(self, batch: int, use: Use) -> None:
        """Solve a consumer at its first use in a batch, before the operation reads the weight.

        Raises:
            RewriteError: its inputs are NaN or infinite.
        """
        key = batch, use.weight
        if use.weight not in self._fits or key in self._arrived:
            return
        self._arrived.add(key)
        samples = self.recording.samples.get(key, [])
        if not samples or not samples[0].matches(use):
            self._skipped[use.weight] = "channels of another axis of its inputs are removed, too"
            del self._fits[use.weight]
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
            fit.solve(self.stack)
        fit.apply()

    def finish(self) -> CompensationReport:
        """Write all weights again, after the last forward, and report."""
        reports = []
        for name, fit in self._fits.items():
            fit.apply()
            explained = fit.explained()
            if explained is None:
                self._skipped[name] = "no bias takes a constant"
            else:
                reports.append(ConsumerReport(name, explained))
        return CompensationReport(tuple(reports), self._skipped)
