"""Removes chosen units: rewrites, repairs or refuses, and reports. Pruning steps and `compact` share this."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from torch import nn
from torch.optim import Optimizer

from gsprune.arrays import BoolArray
from gsprune.backends import Backend
from gsprune.compensation.rehearsal import RehearsalOver
from gsprune.distributed.consensus import Consensus
from gsprune.errors import RewriteError
from gsprune.pruning.ignore import ignored_groups
from gsprune.pruning.report import Context, PruneReport
from gsprune.pruning.session import follower_bindings
from gsprune.pruning.warnings import warn_after_step
from gsprune.rewrite.adjustment import Adjustment
from gsprune.rewrite.network import ForwardBudget, Refusal, RewriteOptions, Rewritten, rewrite_network
from gsprune.rewrite.optimizers.wrappers import check_ownership, with_inner
from gsprune.rewrite.session import SESSION_ATTRIBUTE, Session
from gsprune.selection import Selection

__all__ = ["Execution", "execute"]


@dataclass(frozen=True, slots=True)
class Execution:
    """Options for removing chosen units.

    Attributes:
        selection: the request, for the report.
        ignore: modules whose outputs keep their width.
        backend: slices the tensors.
        dry_run: only report what would be removed.
        adjustments: changes of the smaller network's weights.
        consensus: the ranks that take the step together; None for a single process.
        rehearses: make the changes of a dry run and roll them back; one of the adjustments is a `Rehearsal`.
    """

    selection: Selection
    ignore: Sequence[str | nn.Module | type]
    backend: Backend
    dry_run: bool
    adjustments: Sequence[Adjustment] = ()
    consensus: Consensus | None = None
    rehearses: bool = False


def execute(
    session: Session,
    choose: Callable[[frozenset[str]], BoolArray],
    how: Execution,
    optimizers: Sequence[Optimizer],
    followers: Sequence[nn.Module],
) -> PruneReport:
    """Remove the units that `choose` does not keep.

    Args:
        session: the model, with its binding and structure.
        choose: takes names of groups that must keep their width; returns (units,) bool, True for units to keep. After a
            failed rewrite it is called again with the groups that caused the failure.
        how: the options.
        optimizers: optimizers whose states are sliced along.
        followers: modules of the model's architecture.

    Raises:
        ValueError: an option, an optimizer or a follower does not fit the model.
        RewriteError: the smaller network could not be built or failed its check; nothing was changed.
    """
    started = time.perf_counter()
    bindings = follower_bindings(session, followers)
    check_ownership(optimizers, session.bound.ids, (session.model, *followers))
    optimizers = with_inner(optimizers)
    ignored = ignored_groups(session.model, session.groups.traced, how.ignore)
    rewrite_options = RewriteOptions(how.backend, how.adjustments, how.consensus)
    budget = ForwardBudget()
    attempt = session  # later attempts add links and refused groups
    while True:
        keep = choose(ignored.union(attempt.refused))
        changes = np.count_nonzero(keep) < len(keep)  # `all` goes through Python
        only_counts = how.dry_run and not how.rehearses
        if how.consensus is not None:
            how.consensus.check_choice(session.groups, keep, final=only_counts or not changes)
        result: Rewritten | Refusal = Rewritten(session.groups)
        if changes and only_counts:
            result = Rewritten(session.groups.pruned(keep)[0])
        elif changes and how.dry_run:
            result = _rehearse(attempt, keep, rewrite_options, budget)
        elif changes:
            result = rewrite_network(attempt, keep, optimizers, bindings, rewrite_options, budget)
        if isinstance(result, Rewritten):
            break
        attempt = _after_refusal(attempt, result, budget)
    if not changes or how.dry_run:
        session.model.__dict__[SESSION_ATTRIBUTE] = session  # the next step need not trace again
    names = session.bound.parameter_names
    context = Context(how.selection, session.initial_widths, ignored, attempt.refused, names)
    seconds, after = time.perf_counter() - started, result.structure
    report = PruneReport(changes, seconds, how.dry_run, result.notes, session.groups, after, keep, context)
    warn_after_step(session, report)
    return report


def _rehearse(session: Session, keep: BoolArray, options: RewriteOptions, budget: ForwardBudget) -> Rewritten | Refusal:
    """Rewrite the model without optimizers and followers for an inspection, and roll everything back."""
    try:
        result = rewrite_network(session, keep, (), (), options, budget)
    except RehearsalOver:
        if options.consensus is not None:
            options.consensus.check("that the rewritten network works", final=True)
        return Rewritten(session.groups.pruned(keep)[0])
    assert isinstance(result, Refusal)
    return result


def _after_refusal(session: Session, refusal: Refusal, budget: ForwardBudget) -> Session:
    """The session for the next attempt, in which the groups that caused the failure keep their width.

    Raises:
        RewriteError: no group caused the failure, or the budget of forwards is used up.
    """
    if not refusal.groups or budget.left <= 0:
        raise RewriteError(
            f"the smaller network failed its check{refusal.where}: {refusal.failure.message}; nothing was changed. Keep"
            " the widths that its code relies on with `ignore=`, or report the network"
        ) from refusal.failure.error
    reason = f"a size written into the code{refusal.where}: {refusal.failure.message}"
    refused = {**session.refused, **dict.fromkeys(refusal.groups, reason)}
    return replace(session, links=refusal.links, refused=refused)
