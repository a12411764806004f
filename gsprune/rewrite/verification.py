"""Verifies a rewritten network: its forward must run, and its output must be the masked dense network's.

If the forward fails, stored sizes are searched (`repair.py`). If that does not help, the rewrite is refused, with the
groups whose width the failing code relies on.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from gsprune.errors import RewriteError, is_out_of_memory
from gsprune.rewrite.agreement import DoubtError, compare, settle
from gsprune.rewrite.float64 import call_in_float64
from gsprune.rewrite.kept_populations import KeptPopulations
from gsprune.rewrite.length_changes import changed_lengths, lengths_of
from gsprune.rewrite.masking import masked_output
from gsprune.rewrite.plan import RewritePlan
from gsprune.rewrite.reference_values import Sample, reference_values
from gsprune.rewrite.repair import Repair
from gsprune.rewrite.scale_check import groups_of_queries, groups_without_scalable_queries
from gsprune.rewrite.session import Session
from gsprune.rewrite.size_links import (
    IntegerKey,
    SizeLink,
    integer_entries,
    link_entries,
    links_of_copies,
    stored_value,
)
from gsprune.rewrite.transaction import Transaction
from gsprune.rewrite.watched_call import Failure, Outcome, WrongNumberError, WrongValueError, watched_call
from gsprune.tracing.example import Example
from gsprune.tracing.graph import layer_of
from gsprune.tracing.outputs import tensors_in
from gsprune.tracing.plain_operations import plain_operations
from gsprune.tracing.structure import Structure
from gsprune.tracing.temporary_eval import temporary_eval
from gsprune.tracing.training_mode import is_user_class

__all__ = ["ForwardBudget", "Refusal", "Verification", "cut_groups"]

# Forwards that one step may spend on checks before it gives up.
_MAX_FORWARDS = 20


@dataclass(slots=True)
class ForwardBudget:
    """Counts the forwards that one step spends on checks."""

    used: int = 0

    @property
    def left(self) -> int:
        """Number of forwards that may still be run."""
        return _MAX_FORWARDS - self.used


class Refusal(Exception):  # noqa: N818, the step goes on with another plan
    """A rewritten network that failed its check and is taken back.

    Attributes:
        failure: the reason.
        groups: names of the groups that should keep their width; empty if no group can be blamed.
        links: the stored sizes to change in the next attempt.
    """

    def __init__(self, failure: Failure, groups: Collection[str], links: tuple[SizeLink, ...]) -> None:
        super().__init__(failure.message)
        self.failure, self.groups, self.links = failure, groups, links

    @property
    def where(self) -> str:
        """The innermost module that was running, and the innermost of the user, as a part of a message."""
        kinds = [type(module) for module in self.failure.modules]
        users = [kind.__name__ for kind in kinds if is_user_class(kind)]
        if not kinds or is_user_class(kinds[-1]) or not users:
            return f" in {kinds[-1].__name__}" if kinds else ""
        return f" in {users[-1]}, which calls {kinds[-1].__name__}"


class Verification:
    """The check of one rewrite.

    Construct it while the network is dense: it runs the masked dense network, whose output the small one must have.

    A `doubt` is a difference that an earlier check in the network's own precision found; float64 settles it.

    Raises:
        RewriteError: the session has no example.
    """

    def __init__(
        self, session: Session, plan: RewritePlan, after: Structure, budget: ForwardBudget, doubt: DoubtError | None
    ) -> None:
        if session.example is None:
            raise RewriteError(
                "the rewritten network must be checked by a forward, but its example is not known (it was pickled with"
                " a custom `forward`, or loaded); nothing was changed. Pass `example_inputs=` and `forward=` once more"
            )
        self.session, self.after, self.budget, self.doubt = session, after, budget, doubt
        self.model, self.example = session.model, session.example
        module_of = session.bound.module_of
        self.values_before = {link.key: stored_value(module_of[link.module], link) for link in session.links}
        self.expected_output = self._masked_output(plan)
        self.samples: Sequence[tuple[Sample, ...]] = ()
        if doubt is not None or self.expected_output is None:
            self._check_scales()
        if doubt is not None:
            self.samples = reference_values(session, plan, after)

    def _check_scales(self) -> None:
        """Refuse to cut queries that cannot make up for the scale of their attention."""
        session = self.session
        cut = (groups_of_queries(session) & cut_groups(session.groups, self.after)) - session.verified
        wrong = groups_without_scalable_queries(session, cut) if cut else frozenset()
        if wrong:
            message = "a scale of attention is computed from the width, and no rows of a weight can make up for it"
            raise Refusal(Failure(message, None, ()), wrong, session.links)

    def _masked_output(self, plan: RewritePlan) -> Any:
        """The masked dense network's output; None if the small network's may differ."""
        before, is_wide = self.session.groups, self.doubt is not None
        populations = KeptPopulations(before, self.after) if before.traced.inexact else nullcontext()

        def call(model: nn.Module, example: Example) -> Any:
            if is_wide:
                return call_in_float64(model, example, populations)
            with plain_operations(model) if before.traced.inexact else nullcontext(), populations:
                return example.call(model)

        self.budget.used += 1
        try:
            with temporary_eval(self.model):
                output = masked_output(self.model, self.example, self.session.bound.tensors, plan.kept, call)
        except Exception as error:  # masked channels may make a network fail: 0 / 0, a distribution of NaN
            if not is_wide and is_out_of_memory(error):
                raise
            return None
        return output if all(map(_has_finite_entry, tensors_in(output))) else None

    def check(self, transaction: Transaction) -> tuple[SizeLink, ...]:
        """Run the small network, and repair it if it fails; returns the links of stored integers after repair.

        Raises:
            Refusal: the network cannot be repaired.
            DoubtError: the outputs may differ, and no earlier doubt is to be settled.
        """
        links = self.session.links
        self.budget.used += 1
        # Sizes need no check if the outputs are compared.
        expected = self.after.expected_operations(self.session.groups) if self.expected_output is None else None
        outcome = watched_call(self.model, self.example, expected)
        failure = outcome.failure or self._difference(outcome)
        if failure is not None:
            repair = self._repair(transaction)
            left = self._without(links, repair.given_up, transaction)
            links = tuple(dict.fromkeys((*left, *repair.links)))
            outcome = repair.outcome
            failure = outcome.failure or self._difference(outcome)
        if failure is not None:
            raise Refusal(failure, self._groups_to_blame(outcome.operations, failure), links)
        if self.session.groups.traced.training_trail:
            links = self._check_in_training(links, transaction)
        return self._set_links_of_copies(links, transaction)

    def _check_in_training(self, links: tuple[SizeLink, ...], transaction: Transaction) -> tuple[SizeLink, ...]:
        """Run the small network in training mode, in which the dense one has run; returns the links after repair.

        Only errors count: the outputs depend on random numbers.

        Raises:
            Refusal: the network cannot be repaired, or fails in eval mode after the repair.
        """
        outcome = watched_call(self.model, self.example, (), training=True)  # counts the operations
        failure = outcome.failure
        if failure is None:
            return links
        repair = self._repair(transaction, training=True)
        left = self._without(links, repair.given_up, transaction)
        repaired = tuple(dict.fromkeys((*left, *repair.links)))
        if repair.outcome.failure is not None:
            outcome, failure, links = repair.outcome, repair.outcome.failure, repaired
        else:
            self.budget.used += 1
            again = watched_call(self.model, self.example)
            if again.failure is None and self._difference(again) is None:
                return repaired
        self.budget.used = 0  # each refusal protects a group, so the attempts end
        groups = self._groups_to_blame(outcome.operations, failure, training=True)
        raise Refusal(failure, groups or cut_groups(self.session.groups, self.after), links)

    def _without(
        self, links: tuple[SizeLink, ...], given_up: Collection[IntegerKey], transaction: Transaction
    ) -> list[SizeLink]:
        """The links without those given up and the same ones in copies, whose integers get their values back."""
        graph, module_of = self.session.groups.traced, self.session.bound.module_of
        wrong = [link for link in links if link.key in given_up]
        copies = {each.key for link in wrong for each in links_of_copies(link, graph.copies)} - set(given_up)
        values = {key: value for key, value in self.values_before.items() if key in copies}
        transaction.set_entries(integer_entries(module_of, values))
        return [link for link in links if link.key not in values and link.key not in given_up]

    def _set_links_of_copies(self, links: tuple[SizeLink, ...], transaction: Transaction) -> tuple[SizeLink, ...]:
        """Set the same integers in copies inside the model, which the forward need not run; return all links."""
        graph, module_of = self.session.groups.traced, self.session.bound.module_of
        before = lengths_of(self.session.groups.graph)
        more = []
        for link in links:
            if link.tensor not in before:  # a group that no longer exists
                continue
            for copy in links_of_copies(link, graph.copies):
                if stored_value(module_of[copy.module], copy) == link.value(before[link.tensor][link.axis]):
                    more.append(copy)
        transaction.set_entries(link_entries(module_of, more, lengths_of(self.after.graph)))
        return tuple(dict.fromkeys((*links, *more)))

    def _repair(self, transaction: Transaction, *, training: bool = False) -> Repair:
        """Search stored sizes with half of the budget; the other half is for attempts that protect groups."""
        before, budget = self.session.groups, self.budget.left // 2
        shapes = lengths_of(self.after.graph)
        lengths = changed_lengths(before.graph, shapes)
        expected = self.after.expected_operations(before, training=training)
        if not training:
            known = [*self.samples, *((),) * (len(expected) - len(self.samples))]
            expected = [each._replace(samples=own) for each, own in zip(expected, known, strict=True)]
        values = self.values_before
        repair = Repair(
            self.model, self.example, shapes, lengths, expected, transaction, budget, values, training=training
        )
        repair.search()
        self.budget.used += repair.forwards
        return repair

    def _difference(self, outcome: Outcome) -> Failure | None:
        """The difference between the small network's output and the masked one's; None if they agree."""
        if self.doubt is None:
            difference = None if self.expected_output is None else compare(outcome.output, self.expected_output)
        elif self.expected_output is None:
            difference = settle(self.doubt, None, None)
        else:
            self.budget.used += 1
            precise = watched_call(self.model, self.example, call=call_in_float64)
            difference = settle(self.doubt, precise.output, self.expected_output)
        return None if difference is None else Failure(difference, None, ())

    def _groups_to_blame(self, operations: int, failure: Failure, *, training: bool = False) -> Collection[str]:
        """Groups that this step cuts and that pass through the failing operation, or else through the nearest one."""
        if failure.error is None:
            return ()
        cut = cut_groups(self.session.groups, self.after)
        recurrent = self._groups_of_recurrent(failure, cut)
        if recurrent:
            return recurrent
        traced = self.session.groups.traced
        trail = traced.training_trail if training else traced.trail
        if isinstance(failure.error, WrongNumberError):
            scale = trail[operations].scale
            queries = [name for name in scale.groups if name in cut] if scale is not None else []
            if queries:
                return queries
        if isinstance(failure.error, WrongNumberError | WrongValueError):
            operations += 1  # the operation has met these channels
        # If all earlier operations keep their widths, the failing one is the first to meet a narrower group.
        for passage in (*reversed(trail[:operations]), *trail[operations:]):
            passing = [name for name in passage.groups if name in cut]
            if passing:
                # A group that was cut before without harm is not to blame if another one is cut for the first time.
                return [name for name in passing if name not in self.session.verified] or passing
        return ()

    def _groups_of_recurrent(self, failure: Failure, cut: Collection[str]) -> list[str]:
        """Cut groups of a failing recurrent layer or cell of torch. Some refuse a width before any operation."""
        failing = failure.modules[-1] if failure.modules else None
        if not isinstance(failing, nn.RNNBase | nn.RNNCellBase):
            return []
        names = {name for name, module in self.session.bound.module_of.items() if module is failing}
        return [
            group.name
            for group in self.session.groups.traced.groups
            if group.name in cut and any(m.role == "out" and layer_of(m.tensor) in names for m in group.members)
        ]


def _has_finite_entry(output: Tensor) -> bool:
    """False for an output of NaN, from a weight norm of zeros: nothing of it can be compared."""
    return output.numel() == 0 or bool(output.isfinite().any())


def cut_groups(before: Structure, after: Structure) -> frozenset[str]:
    """Names of the groups that a step makes narrower."""
    counts = zip(before.traced.groups, before.units_of_groups(), after.units_of_groups(), strict=True)
    return frozenset(group.name for group, old, new in counts if old != new)
