"""Finds the stored integers of user modules that must follow a width, if the smaller network fails without that.

CleanRL's IMPALA asserts a stored ``_out_channels`` in its forward; torchvision's ViT stores ``hidden_dim``. An integer
is changed only if the forward fails, or makes a tensor of another size than the trace predicts. The search is greedy.
In the modules on the failing call's stack, innermost first, it sets one integer that equals an old length to the new
length. The new value stays if the forward then passes or gets further. Progress counts operations with the expected
output sizes. Lengths that the failing operation needs are tried first.

If two axes have the same length, a link may be to the wrong one. Once the lengths differ, the forward fails in the
module with the link. Then the link is given up, and another one is searched.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from torch import nn

from gsprune.rewrite.equal_modules import links_of_equal_modules
from gsprune.rewrite.length_changes import LengthChange, Sizes, lengths_of_parts
from gsprune.rewrite.link_search import link_to, links_of_arguments, links_of_module
from gsprune.rewrite.size_links import (
    Entry,
    IntegerKey,
    Shape,
    SizeLink,
    integer_entries,
    is_in_table,
    link_entries,
    stored_value,
)
from gsprune.rewrite.stored_sizes import StoredSize
from gsprune.rewrite.transaction import Transaction
from gsprune.rewrite.watched_call import Failure, Outcome, watched_call
from gsprune.tracing.example import Example
from gsprune.tracing.structure import ExpectedOperation

__all__ = ["Repair"]


class Repair:
    """A search for stored integers with which a rewritten network runs.

    Args:
        shapes: the lengths after the step, as `lengths_of` has them.
        lengths: the lengths that the step changes.
        expected: the sizes that each operation must make.
        budget: number of forwards that the search may run.
        linked_values: the integers with earlier links, which are set already -> their values before.
        training: True to run the forward in training mode.

    Attributes:
        links: the links found.
        given_up: the integers whose earlier links turned out wrong.
        outcome: the last forward; its `failure` is None if the search succeeded.
        forwards: number of forwards run.
    """

    def __init__(
        self,
        model: nn.Module,
        example: Example,
        shapes: Mapping[str, Shape],
        lengths: Sequence[LengthChange],
        expected: Sequence[ExpectedOperation],
        transaction: Transaction,
        budget: int,
        linked_values: Mapping[IntegerKey, int],
        *,
        training: bool = False,
    ) -> None:
        self.model, self.example, self.shapes, self.lengths = model, example, shapes, lengths
        self.expected, self.transaction, self.budget = expected, transaction, budget
        self.linked_values, self.training = dict(linked_values), training
        self.modules = dict(model.named_modules())
        self.names = {id(module): name for name, module in self.modules.items()}
        self.links: list[SizeLink] = []
        self.given_up: set[IntegerKey] = set()
        # Integers that were set as in another module of the class -> their values before.
        self.values_before_copy: dict[IntegerKey, int] = {}
        self.wrong_copies: set[IntegerKey] = set()
        self.forwards = 0
        self.outcome = self._run()

    def search(self) -> None:
        """Change one integer after the other, until the forward passes or the budget is used up."""
        while self.outcome.failure is not None and self.forwards < self.budget:
            if not self._give_up_link() and not self._find_link():
                break

    def _run(self) -> Outcome:
        self.forwards += 1
        return watched_call(self.model, self.example, self.expected, training=self.training, find_stored_sizes=True)

    def _try(self, entries: Sequence[Entry], *, further: bool = True) -> bool:
        """Set entries, and keep them if the forward then passes or gets further (or as far, without `further`).

        Returns:
            False if they were taken back, or the budget is used up.
        """
        if self.forwards >= self.budget:
            return False
        before = [(owner, attribute, owner[attribute]) for owner, attribute, _ in entries]
        self.transaction.set_entries(entries)
        outcome = self._run()
        if outcome.failure is not None and outcome.operations < self.outcome.operations + further:
            self.transaction.set_entries(before)
            return False
        self.outcome = outcome
        return True

    def _give_up_link(self) -> bool:
        """Undo the earlier links of the innermost failing module that has any; False if none has."""
        assert self.outcome.failure is not None
        for module in reversed(self.outcome.failure.modules):
            name = self.names.get(id(module))
            values = {key: value for key, value in self.linked_values.items() if key[0] == name}
            if values:
                for key in values:
                    del self.linked_values[key]
                if self._try(integer_entries(self.modules, values), further=False):
                    self.given_up.update(values)
                return True
        return False

    def _find_link(self) -> bool:
        """Find an integer with which the forward gets further; False if there is none or the budget is used up."""
        failure, needed = self.outcome.failure, _needed_sizes(self.expected, self.outcome.operations)
        assert failure is not None
        sizes = {self._key(size): size for size in failure.stored_sizes}
        lengths = [*self.lengths, *lengths_of_parts(self.lengths, needed)]
        if any(self._correct_copy(key, lengths, needed) for key in sizes):
            return True
        arguments = [(key, size.value) for key, size in sizes.items()]
        needed_links = links_of_arguments(arguments, lengths, needed, also_own=False)
        links = links_of_arguments(arguments, lengths, needed, also_own=True)
        attempts = (needed_links, links if len(links) > len(needed_links) else ())
        if any(len(together) > 1 and self._gets_further(together, lengths) for together in attempts):
            return True
        for module in self._suspects(failure):
            links = links_of_module(self.names[id(module)], module, lengths, needed, list(sizes))
            if any(self._gets_further([link], lengths) for link in links):
                return True
            # An argument of the failing call must change. The code may compare or add another integer first.
            pairs = [[link, other] for link in links if link.key in sizes for other in links if link.key != other.key]
            if any(self._gets_further(pair, lengths) for pair in pairs):
                return True
        return False

    def _key(self, size: StoredSize) -> IntegerKey:
        return self.names.get(id(size.module), ""), size.attribute, size.position

    def _correct_copy(self, key: IntegerKey, lengths: Sequence[LengthChange], needed: Sizes) -> bool:
        """True if the forward gets further with other values than those copied from another module of the class.

        The module copied from may have two axes of equal lengths, of which this module needs the other one. Or the copy
        is wrong for all sizes of this module, or for one, which then keep their values.
        """
        if key not in self.values_before_copy:
            return False
        before = self.values_before_copy[key]
        fitting = [length for length in lengths if length.before == before and length.is_one_of(needed)]
        if fitting:
            best = min(fitting, key=lambda length: not length.is_in(key[0]))
            if best.after == stored_value(self.modules[key[0]], link_to(key, best)):
                return False  # the copied value is the one that the operation needs
            if self._gets_further([link_to(key, best)], lengths):
                return True
        copies = {each: value for each, value in self.values_before_copy.items() if each[0] == key[0]}
        for values in (copies, {key: before}) if len(copies) > 1 else (copies,):
            if self._try(integer_entries(self.modules, values)):
                self._drop_links(values)
                self.wrong_copies.update(values)
                for each in values:
                    del self.values_before_copy[each]
                return True
        return False

    def _suspects(self, failure: Failure) -> list[nn.Module]:
        """User modules that may store the size: those whose numbers the failing call got, then the innermost."""
        modules = (*(size.module for size in failure.stored_sizes), *reversed(failure.modules))
        once = {id(module): module for module in modules if id(module) in self.names and not is_in_table(module)}
        return list(once.values())

    def _gets_further(self, links: Sequence[SizeLink], lengths: Sequence[LengthChange]) -> bool:
        """Set integers together, and keep them if the forward gets further; then other modules of the class, too."""
        if not self._try(link_entries(self.modules, links, self.shapes)):
            return False
        self._add_links(links)
        equal = [links_of_equal_modules(link, self.modules, lengths, self.values_before_copy) for link in links]
        copies = [copy for found in equal for copy in found if copy.key not in self.wrong_copies]
        if copies and self.outcome.failure is not None:
            self._keep_copies(copies)
        return True

    def _keep_copies(self, copies: Sequence[SizeLink]) -> None:
        """Set integers as in another module of the class, if the forward then gets at least as far."""
        before = {link.key: stored_value(self.modules[link.module], link) for link in copies}
        if self._try(link_entries(self.modules, copies, self.shapes), further=False):
            self._add_links(copies)
            self.values_before_copy = {**before, **self.values_before_copy}

    def _add_links(self, links: Sequence[SizeLink]) -> None:
        self._drop_links([link.key for link in links])
        self.links += links

    def _drop_links(self, keys: Collection[IntegerKey]) -> None:
        self.links = [link for link in self.links if link.key not in keys]


def _needed_sizes(expected: Sequence[ExpectedOperation], operations: int) -> Sizes:
    """All changed output sizes of the failing operation.

    A reshape may be a copy and a view, and fails before the copy if the view's sizes are wrong.
    """
    failing = expected[operations : operations + 1]
    if failing and failing[0].op == "aten.clone":
        failing = expected[operations : operations + 2]
    return {
        (before, now) for each in failing for axes in each.outputs for _, before, now in axes or () if before != now
    }
