"""Removes chosen units from a network, and reports. Pruning steps and `compact` share this."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
from torch import nn
from torch.optim import Optimizer

from gsprune.arrays import BoolArray
from gsprune.errors import RewriteError
from gsprune.pruning.ignore import ignored_groups
from gsprune.pruning.report import PruneReport
from gsprune.pruning.session import follower_bindings
from gsprune.pruning.warnings import warn_after_step
from gsprune.rewrite.network import RewriteOptions, rewrite_network
from gsprune.rewrite.optimizers.wrappers import check_ownership, with_inner
from gsprune.rewrite.session import SESSION_ATTRIBUTE, Session
from gsprune.rewrite.size_links import lost_link
from gsprune.rewrite.verification import ForwardBudget, Refusal
from gsprune.selection import Selection

__all__ = ["execute"]


def execute(
    session: Session,
    choose: Callable[[frozenset[str]], tuple[BoolArray, Sequence[str]]],
    selection: Selection,
    ignore: Sequence[str | nn.Module | type],
    options: RewriteOptions,
    optimizers: Sequence[Optimizer] = (),
    followers: Sequence[nn.Module] = (),
) -> PruneReport:
    """Remove the units that `choose` does not keep.

    A dry run without an adjustment only counts. With an adjustment it makes the smaller model and rolls it back.

    `choose` takes the names of groups that must keep their width. It returns (units,) bool, True for units to keep, and
    notes for the report. After a failed rewrite it is called again with the groups that caused the failure.

    `selection` is only for the report.

    Raises:
        ValueError: an option, an optimizer or a follower does not fit the model.
        RewriteError: the smaller network could not be built or failed its check; nothing was changed.
    """
    started = time.perf_counter()
    bindings = follower_bindings(session, followers)
    check_ownership(optimizers, session.bound.ids, (session.model, *followers))
    optimizers = with_inner(optimizers)
    if options.dry_run:
        optimizers, bindings = (), []
    only_counts = options.dry_run and options.adjustment is None
    ignored = ignored_groups(session.model, session.groups.traced, ignore)
    budget = ForwardBudget()
    attempt = session  # later attempts add links and refused groups
    notes: tuple[str, ...] = ()
    while True:
        keep, remarks = choose(ignored.union(attempt.refused))
        changes = np.count_nonzero(keep) < len(keep)  # faster than `all`
        if options.consensus is not None:
            options.consensus.check_choice(session.groups, keep, final=only_counts or not changes)
        if only_counts or not changes:
            after = session.groups.pruned(keep)[0]
            break
        try:
            after, notes = rewrite_network(attempt, keep, optimizers, bindings, options, budget)
            session.bound.note_shapes()
            break
        except Refusal as refusal:
            attempt = _after_refusal(attempt, refusal.with_traceback(None), budget)  # its frames hold sliced tensors
    if not changes or options.dry_run:
        session.model.__dict__[SESSION_ATTRIBUTE] = session  # the next step need not trace again
    report = PruneReport(
        changed=changes,
        seconds=time.perf_counter() - started,
        dry_run=options.dry_run,
        notes=(*remarks, *notes),
        _before=session.groups,
        _after=after,
        _kept_units=keep,
        _selection=selection,
        _initial_widths=session.initial_widths,
        _ignored=ignored,
        _refused=attempt.refused,
        _parameters=session.bound.parameter_names,
    )
    warn_after_step(session, report, optimizers)
    return report


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
    message = refusal.failure.message
    reason = message if refusal.failure.error is None else f"a size written into the code{refusal.where}: {message}"
    refused = {**session.refused, **dict.fromkeys(refusal.groups, reason)}
    verified = frozenset() if lost_link(session.links, refusal.links) else session.verified
    return replace(session, links=refusal.links, refused=refused, verified=verified)
