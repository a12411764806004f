"""One pruning step on a traced model: chooses units by scores and calls `execute`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial

from torch import nn
from torch.optim import Optimizer

from gsprune.backends import get_backend
from gsprune.pruning.choice import choose_units
from gsprune.pruning.execution import execute
from gsprune.pruning.options import StepOptions
from gsprune.pruning.report import PruneReport
from gsprune.pruning.session import with_binding
from gsprune.rewrite.adjustment import Adjustment
from gsprune.rewrite.network import RewriteOptions
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
    session = with_binding(model, session)
    if options.selection.target == "params":  # counts all parameters of the network
        selection = replace(options.selection, parameters=session.bound.parameter_names)
        options = replace(options, selection=selection)
    backend, compensation = get_backend(options.backend, session.bound.device), options.compensation
    adjustments: list[Adjustment] = []
    if compensation is not None:
        adjustments.append(compensation)
    elif options.rescale and not options.dry_run:
        adjustments.append(Rescaling())
    choose = partial(choose_units, session, options, backend)
    how = RewriteOptions(backend, adjustments, options.consensus, options.dry_run)
    criterion, succeeded = options.importance.state_dict(), False
    try:
        report = execute(session, choose, options.selection, options.ignore, how, optimizers, followers)
        succeeded = True
    finally:
        if options.dry_run or not succeeded:
            options.importance.load_state_dict(criterion)
    if compensation is None:
        return report
    return replace(report, compensation=compensation.report, output_change=compensation.change)
