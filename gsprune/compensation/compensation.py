"""Compensation of removed channels, as an adjustment of a pruning step."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

from torch import nn

from gsprune.compensation.borrowed_tensors import can_borrow_tensors
from gsprune.compensation.moments import Stack
from gsprune.compensation.network_fit import NetworkFit
from gsprune.compensation.report import CompensationReport, OutputChange
from gsprune.rewrite.adjustment import SmallerNetwork
from gsprune.rewrite.binding import Binding
from gsprune.rewrite.plan import RewritePlan
from gsprune.rewrite.session import Session
from gsprune.tracing.example import Example
from gsprune.tracing.relative_change import relative_change
from gsprune.tracing.temporary_eval import temporary_eval

__all__ = ["Compensation", "CompensationMode"]

CompensationMode = Literal["bias", "linear"]


class Compensation:
    """Predicts removed channels from kept ones in the weights of their consumers (He et al. 2017, arXiv:1707.06168).

    The dense network runs once and samples of every consumer's inputs x are stored. Then the pruned network runs. When
    it arrives at a consumer with inputs z, the ridge problem x = A z + c is solved, the weight becomes W A, W c is
    added to its bias, and the forward continues with them. So errors do not add up along the depth.

    Each of several batches adds to the moments, and the maps are solved after 1, 4, 16, ... batches and after the last
    one. A weight with several uses gets one map; all uses except the first are fitted on the dense network's inputs.

    Each follower runs with the model's modules and gets separate maps. A follower of another dtype or device cannot
    run, and gets the model's maps, and so does one that shares a tensor with the model.

    The mode "bias" fits only the constants (FLAP, arXiv:2312.11983). `stack` gathers the moments of the ranks that
    train the network together, each with the same number of batches. `measures_change` compares the outputs on the
    calibration data with the dense network's, for dry runs.

    Attributes:
        report: the report of the model in the last step; None before.
        change: the change of the model's output in the last step; None before, and without `measures_change`.
    """

    def __init__(
        self,
        calls: Sequence[Example],
        mode: CompensationMode,
        stack: Stack | None = None,
        *,
        measures_change: bool = False,
    ) -> None:
        self.calls, self.mode, self.stack, self.measures_change = calls, mode, stack, measures_change
        self.report: CompensationReport | None = None
        self.change: OutputChange | None = None
        self._outputs: list[Any] = []  # of the dense network
        self._fits: list[NetworkFit] = []

    def observe(self, session: Session, plan: RewritePlan) -> None:
        """Run the dense network, and the dense followers."""
        self._outputs = self._run(session.model) if self.measures_change else []
        self._fits = []
        for bindings in _sharing_a_map(session.model, plan.bindings):
            self._fits.append(NetworkFit(session, plan, bindings, self.calls, self.mode == "linear"))

    def adjust(self, network: SmallerNetwork) -> Sequence[str]:
        """Run the pruned network and write its weights, then the followers.

        Raises:
            RewriteError: the calibration data makes inputs NaN or infinite.
        """
        model = network.session.model
        sliced = relative_change(self._run(model), self._outputs) if self.measures_change else 0.0
        self.report, *_ = [fit.adjust(network, self.stack) for fit in self._fits]  # the model comes first
        notes = [str(self.report)]
        if self.measures_change:
            self.change = OutputChange(sliced, relative_change(self._run(model), self._outputs))
            notes.append(str(self.change))
        self._fits, self._outputs = [], []
        return notes

    def _run(self, model: nn.Module) -> list[Any]:
        with temporary_eval(model):
            return [call.call(model) for call in self.calls]


def _sharing_a_map(model: nn.Module, bindings: Sequence[Binding]) -> list[list[Binding]]:
    """The networks, grouped by map. The first of each group runs; the others share a tensor or cannot run."""
    groups: list[list[Binding]] = []
    for binding in bindings:
        sharing = [group for group in groups if any(_have_common_tensor(binding, other) for other in group)]
        if sharing:
            sharing[0].append(binding)
        elif not groups or can_borrow_tensors(model, binding):
            groups.append([binding])
        else:
            groups[0].append(binding)
    return groups


def _have_common_tensor(first: Binding, second: Binding) -> bool:
    """True if both own a parameter, or a buffer that pruning may cut; two maps cannot both be written into it."""
    ours, theirs = ({*binding.ids, *map(id, binding.module.parameters())} for binding in (first, second))
    return not ours.isdisjoint(theirs)
