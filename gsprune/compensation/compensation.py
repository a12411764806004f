"""Compensation of removed channels, as an adjustment of a pruning step."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Literal, NamedTuple

from torch import Tensor, nn

from gsprune.compensation.moments import Stack
from gsprune.compensation.network_fit import NetworkFit
from gsprune.compensation.recording import Recording, watch_calls
from gsprune.compensation.report import CompensationReport
from gsprune.compensation.stand_in import can_take_place, in_place_of
from gsprune.compensation.targets import dense_aliases, dense_weights
from gsprune.rewrite.adjustment import SmallerNetwork
from gsprune.rewrite.binding import Binding
from gsprune.rewrite.plan import RewritePlan
from gsprune.rewrite.session import Session
from gsprune.tracing.example import Example

__all__ = ["Compensation", "CompensationMode"]

CompensationMode = Literal["bias", "linear"]


class Compensation:
    """Lets the consumers of removed channels read them off the channels that stay (He et al. 2017, arXiv:1707.06168).

    The dense network runs once and samples of every consumer's inputs x are kept. Then the pruned network runs. When
    it arrives at a consumer with inputs z, the ridge problem x = A z + c is solved, the weight becomes W A, W c goes
    into its bias, and the forward goes on with them. So errors do not add up along the depth.

    With several batches, each one adds to the moments, and those whose number is a power of four and the last one solve
    anew. A weight with several uses gets one map; the uses behind its first one are fitted on the dense network's
    inputs.

    Followers run in the model's place, one after another, and get maps of their own. Those of another dtype or on
    another device cannot, and get the model's. So do those that share a tensor with it.

    Args:
        calls: the calibration data, one call per batch.
        mode: "linear", or "bias" for the constants alone (FLAP, arXiv:2312.11983).
        stack: gathers the moments of the ranks that train the network together, on as many batches each.

    Attributes:
        report: of the model in the last step; None before.
    """

    def __init__(self, calls: Sequence[Example], mode: CompensationMode, stack: Stack | None = None) -> None:
        self.calls, self.mode, self.stack = calls, mode, stack
        self.report: CompensationReport | None = None
        self._runs: list[_Run] = []
        self._dense: dict[int, Tensor] = {}

    def observe(self, session: Session, plan: RewritePlan) -> None:
        """Run the dense network, and the dense followers."""
        self._dense, self._runs = dense_aliases(plan), []
        for bindings in _sharing_a_map(session.model, plan.bindings):
            weights_of = partial(dense_weights, session, plan, bindings, dense_tensors=self._dense)
            with in_place_of(session.model, bindings[0]):
                recording = Recording(
                    session.model,
                    session.groups.graph,
                    plan.kept,
                    self.calls,
                    weights_of if self.mode == "linear" else None,
                )
            self._runs.append(_Run(bindings, recording))

    def adjust(self, network: SmallerNetwork) -> Sequence[str]:
        """Run the pruned network and write its weights, then the followers.

        Raises:
            RewriteError: the calibration data makes inputs NaN or infinite.
        """
        model, reports = network.session.model, []
        for bindings, recording in self._runs:
            fit = NetworkFit(network, bindings, recording, self._dense, self.mode == "linear", self.stack)
            with in_place_of(model, bindings[0]):
                watch_calls(model, recording.axes, self.calls, fit.on_use)
            reports.append(fit.finish())
        self.report = reports[0]
        self._runs, self._dense = [], {}
        return (str(self.report),)


class _Run(NamedTuple):
    """A network that runs on the calibration data: the model or a follower.

    Attributes:
        bindings: the network, and others that get its map.
        recording: of the dense network.
    """

    bindings: Sequence[Binding]
    recording: Recording


def _sharing_a_map(model: nn.Module, bindings: Sequence[Binding]) -> list[list[Binding]]:
    """Those that get one map, the network that runs first: networks with a tensor in common, and what cannot run."""
    groups: list[list[Binding]] = []
    for binding in bindings:
        sharing = [group for group in groups if any(_have_common_tensor(binding, other) for other in group)]
        if sharing:
            sharing[0].append(binding)
        elif not groups or can_take_place(model, binding):
            groups.append([binding])
        else:
            groups[0].append(binding)
    return groups


def _have_common_tensor(first: Binding, second: Binding) -> bool:
    """True if both own a parameter, or a buffer that pruning may cut; two maps cannot both be written into it."""
    ours, theirs = ({*binding.ids, *map(id, binding.module.parameters())} for binding in (first, second))
    return not ours.isdisjoint(theirs)
