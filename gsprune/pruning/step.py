"""One pruning step on a traced model: chooses units by scores and calls `execute`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from torch import nn
from torch.optim import Optimizer

from gsprune.arrays import BoolArray
from gsprune.backends import get_backend
from gsprune.importance import ScoreSource
from gsprune.pruning.execution import execute
from gsprune.pruning.options import StepOptions
from gsprune.pruning.report import PruneReport
from gsprune.pruning.session import with_binding
from gsprune.rewrite.adjustment import Adjustment
from gsprune.rewrite.network import RewriteOptions
from gsprune.rewrite.rescale import Rescaling
from gsprune.rewrite.session import Session
from gsprune.selection import select_units

__all__ = ["take_step"]


def take_step(
    model: nn.Module,
    session: Session,
    options: StepOptions,
    optimizers: Sequence[Optimizer] = (),
    followers: Sequence[nn.Module] = (),
) -> PruneReport:
    """Take one step on a traced model. A criterion's state advances only if the step succeeds.

    Raises:
        ScoreError: a score is not finite.
        ValueError: an option, an optimizer or a follower does not fit the model.
        RewriteError: the smaller network could not be built or failed its check; nothing was changed.
    """
    session = with_binding(model, session)
    structure, tensors, selection = session.groups, session.bound.tensors, options.selection
    if selection.target == "params":  # counts all parameters of the network
        selection = replace(selection, parameters=session.bound.parameter_names)
    backend, compensation = get_backend(options.backend, session.bound.device), options.compensation
    stack = None if options.consensus is None else options.consensus.stacked

    def choose(frozen: frozenset[str]) -> tuple[BoolArray, Sequence[str]]:
        source = ScoreSource(structure, frozen, tensors, backend, model, session.example, options.calibration, stack)
        scores = options.importance.unit_scores(source)
        keep = select_units(structure, scores, session.initial_widths, selection, backend=backend, frozen=frozen)
        return keep, source.notes

    adjustment: Adjustment | None = compensation
    if options.rescale and not options.dry_run:
        adjustment = Rescaling()
    rewrite = RewriteOptions(backend, adjustment, options.consensus, options.dry_run)
    criterion, succeeded = options.importance.state_dict(), False
    try:
        report = execute(session, choose, selection, options.ignore, rewrite, optimizers, followers)
        succeeded = True
    finally:
        if options.dry_run or not succeeded:
            options.importance.load_state_dict(criterion)
    if compensation is None:
        return report
    return replace(report, compensation=compensation.report, output_change=compensation.change)
