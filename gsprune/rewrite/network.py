"""One call that rewrites a network: it is made smaller and verified, then repaired or refused.

The model, its followers and its optimizers change together or not at all.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch.optim import Optimizer

from gsprune.arrays import BoolArray
from gsprune.backends import Backend
from gsprune.distributed.consensus import Consensus
from gsprune.interrupts import PostponedInterrupts
from gsprune.rewrite.adjustment import Adjustment, SmallerNetwork
from gsprune.rewrite.agreement import DoubtError
from gsprune.rewrite.attention_scale import keep_attention_scale
from gsprune.rewrite.binding import Binding
from gsprune.rewrite.length_changes import lengths_of
from gsprune.rewrite.optimizers.stale import parameters_without_optimizer, watch_stale_optimizers
from gsprune.rewrite.plan import RewritePlan, plan_rewrite
from gsprune.rewrite.session import SESSION_ATTRIBUTE, Session
from gsprune.rewrite.size_links import Entry, SizeLink, link_entries, lost_link
from gsprune.rewrite.transaction import Transaction
from gsprune.rewrite.verification import ForwardBudget, Verification, cut_groups
from gsprune.tracing.structure import Structure

__all__ = ["RewriteOptions", "rewrite_network"]


@dataclass(frozen=True, slots=True)
class RewriteOptions:
    """Options of a rewrite. A dry run is rolled back after the adjustment."""

    backend: Backend
    adjustment: Adjustment | None = None
    consensus: Consensus | None = None
    dry_run: bool = False


def rewrite_network(
    session: Session,
    keep: BoolArray,
    optimizers: Sequence[Optimizer],
    followers: Sequence[Binding],
    options: RewriteOptions,
    budget: ForwardBudget,
) -> tuple[Structure, tuple[str, ...]]:
    """Remove units from the model, its followers and its optimizers' states, and check the smaller network.

    `keep` is (units,) bool. `optimizers` has those inside of wrappers, too.

    Returns:
        the groups of the smaller network, and lines for the report.

    Raises:
        Refusal: the smaller network failed its check; nothing was changed.
        RewriteError: the smaller network cannot be built; nothing was changed.
    """
    doubt = None
    while True:
        try:
            rewrite = _Rewrite(session, keep, optimizers, followers, options)
            return rewrite.after, rewrite.run(budget, doubt)
        except DoubtError as error:  # float64 needs the dense network, which the transaction has restored
            doubt = error.with_traceback(None)  # the frames of a traceback would keep the sliced tensors alive


class _Rewrite:
    """One attempt; arguments as of `rewrite_network`."""

    def __init__(
        self,
        session: Session,
        keep: BoolArray,
        optimizers: Sequence[Optimizer],
        followers: Sequence[Binding],
        options: RewriteOptions,
    ) -> None:
        torch.clear_autocast_cache()  # an autocast block around this call would use casts of the old weights
        self.session, self.optimizers, self.options = session, optimizers, options
        self.after, keeps = session.groups.pruned(keep)
        self.plan: RewritePlan = plan_rewrite((session.bound, *followers), self.after, keeps, optimizers)
        self.verified = session.verified
        if len(self.verified) < len(self.after.traced.groups):
            self.verified = self.verified | cut_groups(session.groups, self.after)
        if options.adjustment is not None:
            self.plan.refuse_copies_of_weights()

    def run(self, budget: ForwardBudget, doubt: DoubtError | None) -> tuple[str, ...]:
        """Make all changes; returns lines for the report.

        Raises:
            DoubtError: the outputs may differ, and there is no `doubt` to settle.
            Refusal: the network failed its check.
        """
        plan = self.plan
        unlisted = parameters_without_optimizer(plan.tensors[: plan.num_model], self.optimizers)
        rewrite_at_once = self.options.backend.rewrite
        if rewrite_at_once is not None and _can_be_one_call(self):
            entries = [*plan.entries, *self._session_entries(self.session.links)]
            rewrite_at_once(plan.tensors, plan.patterns, plan.pattern_of, plan.num_owned, entries)
            notes = plan.notes
        else:
            notes = self._run_in_transaction(budget, doubt)
        if not self.options.dry_run:
            watch_stale_optimizers(unlisted)
        return notes

    @property
    def must_check(self) -> bool:
        """True if the forward may meet a size for the first time.

        Sizes written into code show when a group is first cut. The axis that a stored size follows shows when two axes
        of one length get different lengths.
        """
        return self.verified != self.session.verified or bool(self.session.links)

    def _run_in_transaction(self, budget: ForwardBudget, doubt: DoubtError | None) -> tuple[str, ...]:
        """Slice, swap, verify, adjust; returns lines for the report."""
        session, plan, after, links = self.session, self.plan, self.after, self.session.links
        verification = Verification(session, plan, after, budget, doubt) if self.must_check else None
        adjustment = self.options.adjustment
        if adjustment is not None:
            adjustment.observe(session, plan)
        replacements = self.options.backend.slice(plan.tensors, plan.patterns, plan.pattern_of)
        scaled = keep_attention_scale(plan, replacements, session.groups, after, self.optimizers)
        # A detached alias keeps its memory when its tensor gets smaller one.
        dense = {id(tensor): tensor.detach() for tensor in plan.tensors[: plan.num_owned]}
        with PostponedInterrupts(), Transaction() as transaction:
            transaction.swap(plan.tensors, replacements)
            transaction.set_entries(plan.entries)
            self._set_linked(transaction, links, plan.bindings[:1])
            if verification is not None:
                if doubt is not None and scaled:  # rounding of the scaled weights shows in float64, too
                    verification.expected_output = None
                links = verification.check(transaction)
                if lost_link(session.links, links):
                    self.verified = cut_groups(session.groups, after)
            self._set_linked(transaction, links, plan.bindings[1:])
            network = SmallerNetwork(session, plan, dense, transaction)
            notes = () if adjustment is None else adjustment.adjust(network)
            transaction.set_entries(self._session_entries(links))
            if self.options.consensus is not None:  # if one rank fails, all roll back
                self.options.consensus.check("that the rewritten network works", final=True)
            if self.options.dry_run:
                transaction.rollback()
        return (*plan.notes, *notes)

    def _set_linked(self, transaction: Transaction, links: tuple[SizeLink, ...], bindings: Sequence[Binding]) -> None:
        """Set integers of user code to the lengths that they follow."""
        for binding in bindings if links else ():
            transaction.set_entries(link_entries(binding.module_of, links, lengths_of(self.after.graph)))

    def _session_entries(self, links: tuple[SizeLink, ...]) -> list[Entry]:
        """Entries that attach the new session to the model and its followers."""
        session = self.session.after(self.after, links, self.verified)
        model, *followers = (binding.module.__dict__ for binding in self.plan.bindings)
        copies = [(each, SESSION_ATTRIBUTE, replace(session, example=None, binding=None)) for each in followers]
        return [(model, SESSION_ATTRIBUTE, session), *copies]


def _can_be_one_call(rewrite: _Rewrite) -> bool:
    """True if slicing and swapping can be one core call: no check, no scaled weights, no agreement between ranks."""
    options = rewrite.options
    has_queries = bool(rewrite.session.groups.traced.queries)
    return not (rewrite.must_check or options.consensus or options.adjustment or options.dry_run or has_queries)
