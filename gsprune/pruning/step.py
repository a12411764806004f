"""One pruning step on a traced model: chooses units by scores and calls `execute`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from torch import nn
from torch.optim import Optimizer

from gsprune.arrays import BoolArray
from gsprune.backends import get_backend
from gsprune.compensation.rehearsal import Rehearsal
from gsprune.pruning.choice import choose_units
from gsprune.pruning.execution import Execution, execute
from gsprune.pruning.options import StepOptions
from gsprune.pruning.report import PruneReport
from gsprune.pruning.session import with_binding
from gsprune.rewrite.adjustment import Adjustment
from gsprune.rewrite.rescale import Rescaling
from gsprune.rewrite.session import Session

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
        ValueError: an option, an optimizer or a follower does not fit the model.
        RewriteError: the smaller network could not be built or failed its check; nothing was changed.
    """
    importance = options.choice.importance
    criterion = importance.state_dict()
    try:
        report = _take_step(with_binding(model, session), options, optimizers, followers)
    except BaseException:
        importance.load_state_dict(criterion)
        raise
    if report.dry_run:
        importance.load_state_dict(criterion)
    return report


def _take_step(
    session: Session, options: StepOptions, optimizers: Sequence[Optimizer], followers: Sequence[nn.Module]
) -> PruneReport:
    choice, backend = options.choice, get_backend(options.backend, session.bound.device)
    if choice.selection.target == "params":  # counts all parameters of the network
        parameters = session.bound.parameter_names
        choice = replace(choice, selection=replace(choice.selection, parameters=parameters))
    adjustments: list[Adjustment] = [Rescaling()] if options.rescale else []
    rehearsal = None
    if options.compensation is not None:
        rehearsal = Rehearsal(options.compensation) if options.dry_run else None
        adjustments.append(rehearsal or options.compensation)

    remarks: list[str] = []

    def choose(frozen: frozenset[str]) -> BoolArray:
        keep, remarks[:] = choose_units(session, choice, frozen, backend, options.consensus)
        return keep

    how = Execution(
        choice.selection,
        choice.ignore,
        backend,
        options.dry_run,
        adjustments,
        options.consensus,
        rehearses=rehearsal is not None,
    )
    report = execute(session, choose, how, optimizers, followers)
    notes = (*remarks, *report.notes)
    if options.compensation is None:
        return replace(report, notes=notes) if remarks else report
    compensated, change = options.compensation.report, None if rehearsal is None else rehearsal.change
    if change is not None:
        notes = (*notes, str(compensated), str(change))
    return replace(report, notes=notes, compensation=compensated, output_change=change)
