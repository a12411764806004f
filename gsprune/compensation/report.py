"""Reports of a compensation: the explained share of each consumer, and the change of the network's output."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from gsprune.checks import counted

__all__ = ["CompensationReport", "ConsumerReport", "OutputChange"]


@dataclass(frozen=True, slots=True)
class ConsumerReport:
    """One consumer.

    Attributes:
        weight: the consumer's weight.
        explained: the share of its inputs' lost variance that the compensation restores, in [0, 1], weighted by the
            squares of the inputs' weights.
    """

    weight: str
    explained: float


@dataclass(frozen=True)
class CompensationReport:
    """All consumers.

    Attributes:
        consumers: those that were compensated, in the order of the forward.
        skipped: weight -> reason, for consumers whose weights were only sliced.
    """

    consumers: tuple[ConsumerReport, ...]
    skipped: Mapping[str, str]

    def __str__(self) -> str:
        """One line."""
        text = f"compensation: {counted(len(self.consumers), 'consumer')}"
        if self.consumers:
            shares = sorted(consumer.explained for consumer in self.consumers)
            text += f", {shares[len(shares) // 2]:.1%} of the lost variance explained (median; least {shares[0]:.1%})"
        return text + (f"; not compensated: {', '.join(self.skipped)}" if self.skipped else "")


@dataclass(frozen=True, slots=True)
class OutputChange:
    """The change of the network's output on the calibration data by a step: |new - old| / |old|.

    Attributes:
        uncompensated: the change without compensation.
        compensated: the change with compensation. On other inputs it is a little larger.
    """

    uncompensated: float
    compensated: float

    def __str__(self) -> str:
        """One line."""
        return (
            f"output on the calibration data would change by {self.compensated:.2%} ({self.uncompensated:.2%} without"
            " compensation)"
        )
