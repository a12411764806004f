"""A compensated step in a dry run: it predicts how much the network's output will change."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import nn

from gsprune.compensation.compensation import Compensation
from gsprune.rewrite.adjustment import SmallerNetwork
from gsprune.rewrite.plan import RewritePlan
from gsprune.rewrite.session import Session
from gsprune.tracing.relative_change import relative_change
from gsprune.tracing.temporary_eval import temporary_eval

__all__ = ["OutputChange", "Rehearsal"]


@dataclass(frozen=True, slots=True)
class OutputChange:
    """How much a step changes the network's output on the calibration data: |new - old| / |old|.

    Attributes:
        uncompensated: with the channels removed and nothing else.
        compensated: with the weights of the layers behind them fitted, too. On other inputs it is a little larger.
    """

    uncompensated: float
    compensated: float

    def __str__(self) -> str:
        """One line."""
        return (
            f"output on the calibration data would change by {self.compensated:.2%} ({self.uncompensated:.2%} without"
            " compensation)"
        )


class Rehearsal:
    """An adjustment that compensates and measures the output before and after.

    Attributes:
        compensation: the compensation; afterwards it has its report.
        change: the measurement; None before.
    """

    def __init__(self, compensation: Compensation) -> None:
        self.compensation = compensation
        self.change: OutputChange | None = None
        self._dense: list[Any] = []

    def observe(self, session: Session, plan: RewritePlan) -> None:
        """Run the dense network."""
        self._dense = self._outputs(session.model)
        self.compensation.observe(session, plan)

    def adjust(self, network: SmallerNetwork) -> Sequence[str]:
        """Run the smaller network before and after its compensation."""
        sliced = self._change(network.session.model)
        notes = self.compensation.adjust(network)
        self.change = OutputChange(sliced, self._change(network.session.model))
        self._dense = []
        return (*notes, str(self.change))

    def _change(self, model: nn.Module) -> float:
        return relative_change(self._outputs(model), self._dense)

    def _outputs(self, model: nn.Module) -> list[Any]:
        with temporary_eval(model):
            return [call.call(model) for call in self.compensation.calls]
