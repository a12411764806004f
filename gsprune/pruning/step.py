"""One pruning step on a traced model: choose, rewrite, report."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from torch import nn
from torch.optim import Optimizer

from gsprune.backends import get_backend
from gsprune.errors import RewriteError
from gsprune.pruning.choice import choose_units
from gsprune.pruning.ignore import ignored_groups
from gsprune.pruning.options import StepOptions
from gsprune.pruning.report import Context, PruneReport
from gsprune.pruning.session import follower_bindings, with_binding
from gsprune.pruning.warnings import warn_after_step
from gsprune.rewrite.adjustment import Adjustment
from gsprune.rewrite.network import ForwardBudget, Refusal, RewriteOptions, Rewritten, rewrite_network
from gsprune.rewrite.optimizers.wrappers import check_ownership, with_inner
from gsprune.rewrite.rescale import Rescaling
from gsprune.rewrite.session import SESSION_ATTRIBUTE, Session

__all__ = ["take_step"]


def take_step(
    model: nn.Module,
    session: Session,
    options: StepOptions,
    optimizers: Sequence[Optimizer] = (),
    followers: Sequence[nn.Module] = (),
) -> PruneReport:
    """Take one step on a traced model; the state of a seeded criterion advances only if the step succeeds.

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
    started = time.perf_counter()
    choice = options.choice
    if choice.selection.target == "params":  # counts all parameters of the network
        parameters = session.bound.parameter_names
        choice = replace(choice, selection=replace(choice.selection, parameters=parameters))
    bindings = follower_bindings(session, followers)
    check_ownership(optimizers, session.bound.ids, (session.model, *followers))
    optimizers = with_inner(optimizers)
    ignored = ignored_groups(session.model, session.groups.traced, choice.ignore)
    backend = get_backend(options.backend, session.bound.device)
    adjustments: list[Adjustment] = [Rescaling()] if options.rescale else []
    if options.compensation is not None:
        adjustments.append(options.compensation)
    rewrite_options = RewriteOptions(backend, adjustments, options.consensus)
    budget = ForwardBudget()
    attempt = session  # with the links and refused groups that earlier attempts found
    while True:
        keep = choose_units(session, choice, ignored.union(attempt.refused), backend, options.consensus)
        changes = np.count_nonzero(keep) < len(keep)  # `all` goes through Python
        if options.consensus is not None:
            options.consensus.check_choice(session.groups, keep, final=options.dry_run or not changes)
        result: Rewritten | Refusal = Rewritten(session.groups)
        if changes and options.dry_run:
            result = Rewritten(session.groups.pruned(keep)[0])
        elif changes:
            result = rewrite_network(attempt, keep, optimizers, bindings, rewrite_options, budget)
        if isinstance(result, Rewritten):
            break
        attempt = _after_refusal(attempt, result, budget)
    if not changes or options.dry_run:
        session.model.__dict__[SESSION_ATTRIBUTE] = session  # so that the next step need not trace
    names = session.bound.parameter_names
    context = Context(choice.selection, session.initial_widths, ignored, attempt.refused, names)
    seconds, after = time.perf_counter() - started, result.structure
    compensated = None if options.compensation is None else options.compensation.report
    report = PruneReport(
        changes, seconds, options.dry_run, result.notes, session.groups, after, keep, context, compensated
    )
    warn_after_step(session, report)
    return report


def _after_refusal(session: Session, refusal: Refusal, budget: ForwardBudget) -> Session:
    """The session for the next attempt, which leaves the groups alone that were in the way.

    Raises:
        RewriteError: no group is in the way, or the forwards are used up.
    """
    if not refusal.groups or budget.left <= 0:
        raise RewriteError(
            f"the smaller network failed its check{refusal.where}: {refusal.failure.message}; nothing was changed. Keep"
            " the widths that its code relies on with `ignore=`, or report the network"
        ) from refusal.failure.error
    reason = f"a size written into the code{refusal.where}: {refusal.failure.message}"
    refused = {**session.refused, **dict.fromkeys(refusal.groups, reason)}
    return replace(session, links=refusal.links, refused=refused)
