"""One pruning step from request to report: trace, score, choose, rewrite, check, keep or take back."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn
from torch.optim import Optimizer

from gsprune.backends import Backend, BackendName, get_backend
from gsprune.distributed.consensus import Consensus
from gsprune.errors import PruneWarning, RewriteError, is_out_of_memory
from gsprune.importance import Importance, ScoreSource
from gsprune.interrupts import PostponedInterrupts
from gsprune.pruning.caveats import warn_of_caveats
from gsprune.pruning.ignore import ignored_groups
from gsprune.pruning.report import Context, PruneReport
from gsprune.pruning.session import cached_lookup
from gsprune.rewrite.agreement import DoubtError, compare, settle
from gsprune.rewrite.attention_scale import keep_attention_scale
from gsprune.rewrite.binding import Binding
from gsprune.rewrite.check import Failure, Run, run
from gsprune.rewrite.float64 import call_in_float64
from gsprune.rewrite.followers import matched_tensors
from gsprune.rewrite.masking import masked_output
from gsprune.rewrite.optimizers.stale import parameters_without_optimizer, watch_stale_optimizers
from gsprune.rewrite.optimizers.states import check_ownership
from gsprune.rewrite.optimizers.wrappers import with_inner
from gsprune.rewrite.plan import RewritePlan, plan_rewrite
from gsprune.rewrite.recorded_widths import apply_plan, sliced
from gsprune.rewrite.repair import changed_lengths, lengths_of, repaired
from gsprune.rewrite.rescale import rescaled
from gsprune.rewrite.session import SESSION_ATTRIBUTE, Session
from gsprune.rewrite.size_links import Entry, SizeLink, revised_links
from gsprune.rewrite.tensors import canonical_tensors
from gsprune.rewrite.transaction import Transaction
from gsprune.selection import Selection, group_layers, select_units
from gsprune.tracing.example import Example
from gsprune.tracing.structure import Structure
from gsprune.tracing.undisturbed import undisturbed

__all__ = ["MAX_FORWARDS", "Request", "Step", "take_step"]

# Forwards that one step may spend on checks before it gives up.
MAX_FORWARDS = 20

BoolArray = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Request:
    """The options of one step; the meaning of each is in `gsprune.prune_step`."""

    selection: Selection
    importance: Importance
    ignore: Sequence[str | nn.Module | type]
    rescale: bool
    backend: BackendName
    dry_run: bool
    consensus: Consensus | None = None


class _RefusedError(Exception):
    """The rewritten network failed its check; carries what the next plan must leave alone."""

    def __init__(
        self,
        failure: Failure,
        groups: Collection[str],
        links: tuple[SizeLink, ...],
        given_up: frozenset[tuple[str, str]],
    ) -> None:
        super().__init__(failure.message)
        self.failure = failure
        self.groups = groups
        self.links = links
        self.given_up = given_up


class Step:
    """One step on one model; `take` does it.

    Args:
        model: the network.
        state: what is known of it.
        request: the options.
        optimizers: whose states follow.
        followers: modules that follow.

    Raises:
        ValueError: an option, an optimizer or a follower does not fit the model.
    """

    def __init__(
        self,
        model: nn.Module,
        state: Session,
        request: Request,
        optimizers: Sequence[Optimizer],
        followers: Sequence[nn.Module],
    ) -> None:
        assert state.structure is not None
        self.model = model
        self.known = cached_lookup(model, state)
        self.state = state if state.cache is self.known else replace(state, cache=self.known)
        self.structure = state.structure
        self.request = request
        self.consensus = request.consensus
        self.optimizers = with_inner(optimizers)
        self.bindings = [self.known.binding, *self._bindings_of(followers)]
        self.tensors = self.known.binding.tensors
        check_ownership(optimizers, self.known.binding.ids, (model, *followers))
        self.ignored = ignored_groups(model, self.structure.traced, request.ignore)
        self.selection = request.selection
        if self.selection.target == "params":
            self.selection = replace(self.selection, parameters=self.known.parameters)
        self.forwards = 0
        self.links = state.links  # and what a refused plan has found: the next one need not search it again

    def _bindings_of(self, followers: Sequence[nn.Module]) -> list[Binding]:
        if not followers:
            return []
        graph = self.structure.graph
        return [
            Binding(follower, self.structure, matched_tensors(follower, index, graph.shapes, graph.aliases))
            for index, follower in enumerate(followers)
        ]

    def take(self) -> PruneReport:
        """Choose, rewrite, check; returns the report."""
        started = time.perf_counter()
        backend = get_backend(self.request.backend, self.known.device)
        refused = dict(self.state.refused)
        after: Structure = self.structure
        notes: tuple[str, ...] = ()
        while True:
            keep = self._choose(backend, self.ignored.union(refused))
            changes = np.count_nonzero(keep) < len(keep)  # `all` goes through Python
            if self.consensus is not None:
                self.consensus.check_choice(self.structure, keep, final=self.request.dry_run or not changes)
            if not changes:
                break
            try:
                after, notes = self._rewritten(keep, refused, backend)
            except _RefusedError as refusal:
                self._learn(refusal, refused)
                continue
            break
        if after is self.structure or self.request.dry_run:
            self.model.__dict__[SESSION_ATTRIBUTE] = self.state  # so that the next step need not trace
        context = Context(self.selection, self.state.initial_widths, self.ignored, refused, self.known.parameters)
        seconds = time.perf_counter() - started
        report = PruneReport(changes, seconds, self.request.dry_run, notes, self.structure, after, keep, context)
        if not report.changed:
            self._warn_if_stuck(report)
        elif not self.state.verified and not report.dry_run:  # the first step that removes anything
            warn_of_caveats(self.model, self.structure.traced, report.removed_positions)
        return report

    def _choose(self, backend: Backend, frozen: frozenset[str]) -> BoolArray:
        """(units,) bool: what to keep."""
        example = self.state.example
        run = None if example is None else example.call
        source = ScoreSource(self.structure, frozen, self.tensors, backend, self.model, run)
        average = None if self.consensus is None else self.consensus.mean
        scores = self.request.importance.unit_scores(source, average)
        return select_units(
            self.structure, scores, self.state.initial_widths, self.selection, backend=backend, frozen=frozen
        )

    def _rewritten(
        self, keep: BoolArray, refused: Mapping[str, str], backend: Backend
    ) -> tuple[Structure, tuple[str, ...]]:
        """`_rewrite`, with a doubt settled in float64: that needs the dense network back, so the step is done again."""
        try:
            return self._rewrite(keep, refused, backend)
        except DoubtError as doubt:
            found = doubt
        return self._rewrite(keep, refused, backend, found)

    def _rewrite(
        self, keep: BoolArray, refused: Mapping[str, str], backend: Backend, doubt: DoubtError | None = None
    ) -> tuple[Structure, tuple[str, ...]]:
        """Rewrite everything in one transaction, which is taken back where an exception ends it.

        Raises:
            DoubtError: the outputs may differ; there was no `doubt` to settle yet.
            _RefusedError: the check fails.
        """
        after, keeps = self.structure.pruned(keep)
        if self.request.dry_run:
            return after, ()
        torch.clear_autocast_cache()  # casts of the present weights, which an autocast block would go on to use
        plan = plan_rewrite(self.bindings, after, keeps, self.optimizers)
        left_out = parameters_without_optimizer(plan.tensors[: plan.num_model], self.optimizers)
        links = self.links
        linked = self.known.binding.user_entries(links, lengths_of(after.graph)) if links else []
        verified = self.state.verified
        if len(verified) < len(after.traced.groups):
            verified = verified | self._cut_groups(after)
        # Sizes written into code show when a group is first cut; what a stored size follows, when two axes part.
        must_check = verified != self.state.verified or bool(links)
        held = {(link.module, link.attribute): self._stored(link) for link in links}
        rewrite = None if must_check else backend.rewrite
        if rewrite is not None and self._needs_no_look():
            entries = [*plan.entries, *self._state_entries(after, refused, links, verified)]
            rewrite(plan.tensors, plan.patterns, plan.pattern_of, plan.num_owned, entries)
            watch_stale_optimizers(left_out)
            return after, plan.notes
        call = None if doubt is None else call_in_float64
        expected = self._expected(plan, call) if must_check else None
        replacements = sliced(plan, backend)
        rounded = keep_attention_scale(plan, replacements, self.bindings, self.structure, after, self.optimizers)
        others = []
        if self.request.rescale:
            plan.refuse_to_scale()
            others = rescaled(plan, replacements, self.structure.traced, canonical_tensors(self.model))
        with PostponedInterrupts(), Transaction() as transaction:
            apply_plan(transaction, plan, replacements)
            transaction.swap([bias for bias, _ in others], [replacement for _, replacement in others])
            transaction.set_entries(linked)
            if must_check:
                if doubt is not None and rounded:  # the scaled weights differ in float64, too
                    expected = None
                found, given_up = self._check(transaction, after, expected, held, doubt)
                links = revised_links(links, given_up, found)
            if links:
                transaction.set_entries(
                    [e for b in self.bindings[1:] for e in b.user_entries(links, lengths_of(after.graph))]
                )
            transaction.set_entries(self._state_entries(after, refused, links, verified))
            if self.consensus is not None:  # all or none: a rank whose rewrite failed takes the others back
                self.consensus.check("that the rewritten network works", final=True)
        watch_stale_optimizers(left_out)
        return after, plan.notes

    def _expected(self, plan: RewritePlan, call: Callable[[nn.Module, Example], Any] | None) -> Any:
        """The masked dense network's output to `call`, which the sliced one must equal; None if that is not exact."""
        if self.state.example is None or self.structure.traced.inexact or self.request.rescale:
            return None
        self.forwards += 1
        kept = {name: dict(plan.keeps(name)) for name in plan.model_index}
        try:
            with undisturbed(self.model):
                return masked_output(self.model, self.state.example, self.tensors, kept, call)
        except Exception as error:  # zeros may be nothing that the network can do with: 0 / 0, a distribution of NaN
            if call is None and is_out_of_memory(error):
                raise
            return None

    def _stored(self, link: SizeLink) -> Any:
        return self.known.binding.module_of[link.module].__dict__[link.attribute]

    def _check(
        self,
        transaction: Transaction,
        after: Structure,
        expected: Any,
        held: Mapping[tuple[str, str], Any],
        doubt: DoubtError | None,
    ) -> tuple[tuple[SizeLink, ...], frozenset[tuple[str, str]]]:
        """Run the rewritten network; finds stored sizes where it fails, or raises `_RefusedError`.

        Args:
            transaction: records the changes.
            after: the structure of the rewritten network.
            expected: the output that it must have, or None.
            held: (module, attribute) of the links that were set before the check -> the value before that.
            doubt: what an earlier run in the network's own precision came to; then `expected` is in float64.

        Returns:
            new links, and (module, attribute) of those that turned out wrong.
        """
        example = self.state.example
        if example is None:
            raise RewriteError(
                "the rewritten network must be checked by a forward, but its example is not known (it was pickled with"
                " a custom `forward`, or loaded); nothing was changed. Pass `example_inputs=` and `forward=` once more"
            )
        self.forwards += 1
        # Outputs that equal the masked network's say more than sizes, and cost less.
        outcome = run(self.model, example, after.due(self.structure) if expected is None else None)
        failure = outcome.failure or self._difference(outcome, expected, doubt)
        links: tuple[SizeLink, ...] = ()
        given_up: frozenset[tuple[str, str]] = frozenset()
        if failure is not None:
            lengths = changed_lengths(self.structure.graph, lengths_of(after.graph))
            # Half of what is left: were the search to use it all up, no groups could be protected instead.
            budget = (MAX_FORWARDS - self.forwards) // 2
            repair = repaired(self.model, example, lengths, after.due(self.structure), transaction, budget, held)
            links, given_up, outcome = repair.links, repair.given_up, repair.run
            self.forwards += repair.forwards
            failure = outcome.failure or self._difference(outcome, expected, doubt)
        if failure is not None:
            raise _RefusedError(failure, self._groups_before(outcome.operations, failure, after), links, given_up)
        return links, given_up

    def _difference(self, outcome: Run, expected: Any, doubt: DoubtError | None) -> Failure | None:
        """How the rewritten network's output differs from the masked one's, None where it does not."""
        assert self.state.example is not None
        if doubt is None:
            difference = None if expected is None else compare(outcome.output, expected)
        elif expected is None:
            difference = settle(doubt, None, None)
        else:
            self.forwards += 1
            difference = settle(doubt, run(self.model, self.state.example, call=call_in_float64).output, expected)
        return None if difference is None else Failure(difference, None, ())

    def _cut_groups(self, after: Structure) -> frozenset[str]:
        """Names of the groups that this step makes narrower."""
        counts = zip(
            self.structure.traced.groups, self.structure.units_of_groups(), after.units_of_groups(), strict=True
        )
        return frozenset(group.name for group, old, new in counts if old != new)

    def _groups_before(self, operations: int, failure: Failure, after: Structure) -> Collection[str]:
        """Groups that this step cuts, of the last traced operation before the failure that has any, or of the next."""
        if failure.error is None:
            return ()
        cut = self._cut_groups(after)
        if isinstance(failure.modules[-1] if failure.modules else None, nn.RNNBase | nn.RNNCellBase):
            # Torch's recurrent layers and cells refuse some widths (of a state, of a projection) before any operation.
            mine = {name for name, module in self.known.binding.module_of.items() if module is failure.modules[-1]}
            own = [g.name for g in self.structure.traced.groups if g.name in cut and group_layers(g) & mine]
            if own:
                return own
        trail = self.structure.traced.trail
        # Where all that came before keeps its width, the failing operation is the first to meet what is cut.
        for passage in (*reversed(trail[:operations]), *trail[operations:]):
            passing = [name for name in passage.groups if name in cut]
            if passing:
                # What has been cut before without harm is not to blame where something else is cut for the first time.
                return [name for name in passing if name not in self.state.verified] or passing
        return ()

    def _learn(self, refusal: _RefusedError, refused: dict[str, str]) -> None:
        """Protect what stood in the way, or give up."""
        where = f" in {type(refusal.failure.modules[-1]).__name__}" if refusal.failure.modules else ""
        if not refusal.groups or self.forwards >= MAX_FORWARDS:
            raise RewriteError(
                f"the smaller network failed its check{where}: {refusal.failure.message}; nothing was changed. Keep the"
                " widths that its code relies on with `ignore=`, or report the network"
            ) from refusal.failure.error
        self.links = revised_links(self.links, refusal.given_up, refusal.links)
        for name in refusal.groups:
            refused[name] = f"a size written into the code{where}: {refusal.failure.message}"

    def _state_entries(
        self,
        after: Structure,
        refused: Mapping[str, str],
        links: tuple[SizeLink, ...],
        verified: frozenset[str],
    ) -> list[Entry]:
        """What lets the new state live with the model and its followers."""
        attributes: dict[str, dict[str, Any]] = {}
        for link in links:
            module = self.known.binding.module_of[link.module]
            attributes.setdefault(link.module, {})[link.attribute] = module.__dict__[link.attribute]
        state = replace(
            self.state,
            structure=after,
            attributes=attributes or self.state.attributes,
            links=links,
            verified=verified,
            refused=dict(refused),
        )
        owners = [binding.module.__dict__ for binding in self.bindings]
        states = [state, *[replace(state, example=None, cache=None) for _ in self.bindings[1:]]]
        return [(owner, SESSION_ATTRIBUTE, each) for owner, each in zip(owners, states, strict=True)]

    def _needs_no_look(self) -> bool:
        """Whether nothing must be done between slicing and the last change but the changes themselves."""
        return self.consensus is None and not self.request.rescale and not self.structure.traced.queries

    def _warn_if_stuck(self, report: PruneReport) -> None:
        """Say so when more is asked for than can go; always in the same words, which Python's filters show once."""
        asked = self.selection.sparsity
        if (max(asked.values(), default=0.0) if isinstance(asked, Mapping) else asked) <= 0:
            return
        graph = self.structure.traced
        if graph.groups:
            missing = report.shortfall
            if missing is None or not missing.final:
                return
            cause = str(missing)
        elif graph.protected:
            reasons = "; ".join(f"{', '.join(p.names[:3])}: {p.reason}" for p in graph.protected[:5])
            cause = f"every channel is protected ({reasons})"
        else:
            cause = "it has no channels to remove"
        more = "more " if report.channel_sparsity > 0 else ""
        warnings.warn(
            f"nothing {more}of {type(self.model).__name__} can be removed: {cause}", PruneWarning, stacklevel=5
        )


def take_step(step: Step) -> PruneReport:
    """Take the step; the state of a seeded criterion goes on only if the step succeeds."""
    criterion = step.request.importance.state_dict()
    try:
        report = step.take()
    except BaseException:
        step.request.importance.load_state_dict(criterion)
        raise
    if report.dry_run:
        step.request.importance.load_state_dict(criterion)
    return report
