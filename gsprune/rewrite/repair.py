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
from dataclasses import dataclass
from typing import Any

from torch import nn

from gsprune.rewrite.size_links import Entry, Shape, SizeLink, is_in_table, with_element
from gsprune.rewrite.stored_sizes import StoredSize, stored_integers
from gsprune.rewrite.transaction import Transaction
from gsprune.rewrite.watched_call import Failure, Outcome, watched_call
from gsprune.tracing.example import Example
from gsprune.tracing.graph import Graph
from gsprune.tracing.structure import ExpectedOperation

__all__ = ["LengthChange", "Repair", "changed_lengths", "lengths_of"]

_Candidate = tuple[SizeLink, Entry]
_Key = tuple[str, str, int | None]  # module, attribute, index


@dataclass(frozen=True, slots=True)
class LengthChange:
    """A length that a step changes: that of an axis, or that of one head if the axis has `divisor` heads.

    `tensor` is a key of `lengths_of`.
    """

    tensor: str
    axis: int
    divisor: int
    before: int
    after: int


def lengths_of(graph: Graph) -> dict[str, Shape]:
    """Shapes of all tensors, and the number of units of every group: a part of a split may be as long as no axis."""
    return {**graph.shapes, **{f"{group.name}.units": (group.num_units,) for group in graph.groups}}


def changed_lengths(graph: Graph, after: Mapping[str, Shape]) -> list[LengthChange]:
    """All lengths that change, whole axes before heads. `after` has the keys of `lengths_of`."""
    found: dict[tuple[str, int, int], LengthChange] = {}
    for name, shape in lengths_of(graph).items():
        for axis, (old, new) in enumerate(zip(shape, after[name], strict=True)):
            if old != new:
                found[name, axis, 1] = LengthChange(name, axis, 1, old, new)
    for group in graph.groups:
        for member in group.members:
            length = graph.shapes[member.tensor][member.axis]
            if group.num_units and length != group.num_units and length % group.num_units == 0:
                heads = length // group.num_units
                new = after[member.tensor][member.axis] // heads
                if new != group.num_units:
                    key = (member.tensor, member.axis, heads)
                    found[key] = LengthChange(member.tensor, member.axis, heads, group.num_units, new)
    return list(found.values())


class Repair:
    """A search for stored integers with which a rewritten network runs.

    Args:
        lengths: the lengths that the step changes.
        expected: the sizes that each operation must make.
        budget: number of forwards that the search may run.
        linked_values: (module, attribute) of earlier links, which are set already -> the value before.

    Attributes:
        links: the links found.
        given_up: (module, attribute) of earlier links that turned out wrong.
        outcome: the last forward; its `failure` is None if the search succeeded.
        forwards: number of forwards run.
    """

    def __init__(
        self,
        model: nn.Module,
        example: Example,
        lengths: Sequence[LengthChange],
        expected: Sequence[ExpectedOperation],
        transaction: Transaction,
        budget: int,
        linked_values: Mapping[tuple[str, str], Any],
    ) -> None:
        self.model, self.example, self.lengths, self.transaction = model, example, lengths, transaction
        self.expected, self.budget, self.linked_values = expected, budget, dict(linked_values)
        self.names = {id(module): name for name, module in model.named_modules()}
        self.links: list[SizeLink] = []
        self.given_up: set[tuple[str, str]] = set()
        # Attributes that were set as in another module of the class -> the value before.
        self.values_before_copy: dict[_Key, Any] = {}
        self.taken_back: set[_Key] = set()  # copies that were wrong
        self.forwards = 0
        self.outcome = self._run()

    def search(self) -> None:
        """Change one integer after the other, until the forward passes or the budget is used up."""
        while self.outcome.failure is not None and self.forwards < self.budget:
            if not self._give_up_link() and not self._find_link():
                break

    def _run(self) -> Outcome:
        self.forwards += 1
        return watched_call(self.model, self.example, self.expected, find_stored_sizes=True)

    def _try(self, entries: Sequence[Entry], *, further: bool = True) -> list[Entry] | None:
        """Set entries, and keep them if the forward then passes or gets further (or as far, without `further`).

        Returns:
            the entries before; None if the new ones were taken back, or the budget is used up.
        """
        if self.forwards >= self.budget:
            return None
        before = [(owner, attribute, owner[attribute]) for owner, attribute, _ in entries]
        self.transaction.set_entries(entries)
        outcome = self._run()
        if outcome.failure is not None and outcome.operations < self.outcome.operations + further:
            self.transaction.set_entries(before)
            return None
        self.outcome = outcome
        return before

    def _give_up_link(self) -> bool:
        """Undo the earlier links of the innermost failing module that has any; False if none has."""
        assert self.outcome.failure is not None
        for module in reversed(self.outcome.failure.modules):
            name = self.names.get(id(module))
            keys = [key for key in self.linked_values if key[0] == name]
            if keys:
                entries = [(module.__dict__, key[1], self.linked_values.pop(key)) for key in keys]
                if self._try(entries, further=False) is not None:
                    self.given_up.update(keys)
                return True
        return False

    def _find_link(self) -> bool:
        """Find an integer with which the forward gets further; False if there is none or the budget is used up."""
        failure, needed = self.outcome.failure, _needed_sizes(self.expected, self.outcome.operations)
        assert failure is not None
        passed = {(id(size.module), size.attribute, size.position) for size in failure.stored_sizes}
        lengths = [*self.lengths, *_parts(self.lengths, needed)]
        if any(self._correct_copy(size, lengths, needed) for size in failure.stored_sizes):
            return True
        needed_arguments = self._arguments(failure, needed, lengths)
        arguments = self._arguments(failure, needed, lengths, also_own=True)
        attempts = (needed_arguments, arguments if len(arguments) > len(needed_arguments) else ())
        if any(len(together) > 1 and self._gets_further(together, lengths) for together in attempts):
            return True
        for module in self._suspects(failure):
            candidates = _candidates(module, self.names[id(module)], lengths, needed, failure)
            if any(self._gets_further([candidate], lengths) for candidate in candidates):
                return True
            # An argument of the failing call must change. The code may compare or add another integer first.
            for candidate in candidates:
                if (id(module), candidate[0].attribute, candidate[0].index) in passed and any(
                    self._gets_further([candidate, other], lengths)
                    for other in candidates
                    if (other[0].attribute, other[0].index) != (candidate[0].attribute, candidate[0].index)
                ):
                    return True
        return False

    def _arguments(
        self,
        failure: Failure,
        needed: Collection[tuple[int, int]],
        lengths: Sequence[LengthChange],
        *,
        also_own: bool = False,
    ) -> list[_Candidate]:
        """The stored integers that the failing call got, with the values that it needs: the sizes of a split.

        With `also_own`, the others get the new lengths of their modules' own axes: in ``[size, width - size]``, the
        width is no size of a part.
        """
        found: list[_Candidate] = []
        for size in dict.fromkeys(failure.stored_sizes):
            name = self.names.get(id(size.module), "")
            prefix = f"{name}." if name else ""
            fitting = [
                length
                for length in lengths
                if length.before == size.value
                and (
                    (length.before, length.after) in needed
                    or (also_own and length.divisor == 1 and length.tensor.startswith(prefix))
                )
            ]
            best = min(
                fitting,
                key=lambda length: (
                    (length.before, length.after) not in needed,
                    not length.tensor.startswith(prefix),
                    length.divisor != 1,
                ),
                default=None,
            )
            if best is not None:
                found.append(_candidate(name, size.module, size.attribute, size.position, best))
        return found

    def _correct_copy(
        self, size: StoredSize, lengths: Sequence[LengthChange], needed: Collection[tuple[int, int]]
    ) -> bool:
        """True if the forward gets further with other values than those copied from another module of the class.

        The module copied from may have two axes of equal lengths, of which this module needs the other one. Or the copy
        is wrong for all sizes of this module, or for one, which then keep their values.
        """
        name = self.names.get(id(size.module), "")
        mine = [key for key in self.values_before_copy if key[0] == name]
        wrong = (name, size.attribute, size.position)
        if wrong not in mine:
            return False
        before = _element(self.values_before_copy[wrong], size.position)
        fitting = [each for each in lengths if each.before == before and (before, each.after) in needed]
        if fitting:
            best = min(fitting, key=lambda length: not length.tensor.startswith(f"{name}."))
            if self._gets_further([_candidate(name, size.module, size.attribute, size.position, best)], lengths):
                return True
        for keys in (mine, [wrong]) if len(mine) > 1 else ([wrong],):
            if self._try([(size.module.__dict__, key[1], self.values_before_copy[key]) for key in keys]) is not None:
                self._drop_links(keys)
                self.taken_back.update(keys)
                for key in keys:
                    del self.values_before_copy[key]
                return True
        return False

    def _suspects(self, failure: Failure) -> list[nn.Module]:
        """User modules that may store the size: those whose numbers the failing call got, then the innermost."""
        modules = (*(size.module for size in failure.stored_sizes), *reversed(failure.modules))
        once = {id(module): module for module in modules if id(module) in self.names and not is_in_table(module)}
        return list(once.values())

    def _gets_further(self, candidates: Sequence[_Candidate], lengths: Sequence[LengthChange]) -> bool:
        """Set integers together, and keep them if the forward gets further."""
        if self._try(_entries(candidates)) is None:
            return False
        links = [link for link, _ in candidates]
        self._add_links(links)
        copies = [other for link in links for other in self._same_in_class(link, lengths)]
        if copies and self.outcome.failure is not None:
            self._keep_copies(copies)
        return True

    def _keep_copies(self, copies: Sequence[_Candidate]) -> None:
        """Set other modules of the class alike, if the forward then gets at least as far."""
        before = self._try(_entries(copies), further=False)
        if before is not None:
            values = {(id(owner), attribute): value for owner, attribute, value in before}
            self._add_links([link for link, _ in copies])
            for link, (owner, attribute, _) in copies:
                self.values_before_copy.setdefault(link.key, values[id(owner), attribute])

    def _add_links(self, links: Sequence[SizeLink]) -> None:
        self._drop_links([link.key for link in links])
        self.links += links

    def _drop_links(self, keys: Collection[_Key]) -> None:
        self.links = [link for link in self.links if link.key not in keys]

    def _same_in_class(self, link: SizeLink, lengths: Sequence[LengthChange]) -> list[_Candidate]:
        """The same attribute of all other modules of the class, if it held a length of their own tensors.

        Networks have many equal blocks, and a search in each of them would use up the forwards.
        """
        modules = dict(self.model.named_modules())
        kind, prefix = type(modules[link.module]), f"{link.module}." if link.module else ""
        is_near, stored = link.tensor.startswith(prefix), modules[link.module].__dict__[link.attribute]
        found: list[_Candidate] = []
        for name, module in modules.items():
            if type(module) is not kind or name == link.module:
                continue
            for index, present in _same_position(module.__dict__.get(link.attribute), stored, link.index):
                copied = self.values_before_copy.get((name, link.attribute, index))
                value = present if copied is None else _element(copied, index)
                own = [length for length in lengths if length.before == value and length.tensor.startswith(f"{name}.")]
                same = f"{name}.{link.tensor.removeprefix(prefix)}", link.axis
                # Another stage may have more heads, of the same width.
                best = [length for length in own if (length.tensor, length.axis) == same and _suits(length, link)]
                if not is_near:  # a module without tensors follows the same tensor as the other module
                    best = [length for length in lengths if (length.tensor, length.axis) == (link.tensor, link.axis)]
                    best = [length for length in best if length.before == value and _suits(length, link)]
                elif not best and len({length.after for length in own}) == 1:
                    best = own
                if best and best[0].after != present and (name, link.attribute, index) not in self.taken_back:
                    found.append(_candidate(name, module, link.attribute, index, best[0]))
        return found


def _element(value: Any, index: int | None) -> Any:
    """An element of a stored tuple or list; without `index` the stored integer itself."""
    return value if index is None else value[index]


def _same_position(value: Any, stored: Any, index: int | None) -> Sequence[tuple[int | None, Any]]:
    """(position, integer) of the elements of `value` that correspond to the element `index` of `stored`.

    `value` may be a shorter list, or a longer one, whose further elements correspond to the last one of `stored`.
    """
    if index is None:
        return [(None, value)]
    elements = list(enumerate(value)) if isinstance(value, tuple | list) else []
    return elements[index : None if index == len(stored) - 1 else index + 1]


def _entries(candidates: Sequence[_Candidate]) -> list[Entry]:
    """The candidates' entries; several elements of one tuple or list change together."""
    merged: dict[tuple[int, str], Entry] = {}
    for link, (owner, attribute, changed) in candidates:
        earlier = merged.get((id(owner), attribute))
        both = changed
        if earlier is not None and link.index is not None:
            both = with_element(earlier[2], link.index, changed[link.index])
        merged[id(owner), attribute] = owner, attribute, both
    return list(merged.values())


def _suits(length: LengthChange, link: SizeLink) -> bool:
    """True if both belong to whole axes, or both to heads."""
    return (length.divisor == 1) == (link.divisor == 1)


def _parts(lengths: Sequence[LengthChange], needed: Collection[tuple[int, int]]) -> list[LengthChange]:
    """Equal parts of whole axes that have the needed sizes: several heads may shrink as one unit."""
    return [
        LengthChange(length.tensor, length.axis, length.before // before, before, now)
        for length in lengths
        for before, now in needed
        if length.divisor == 1 and length.before > before and length.before % before == 0
        if length.before // before * now == length.after
    ]


def _needed_sizes(expected: Sequence[ExpectedOperation], operations: int) -> set[tuple[int, int]]:
    """(before the step, after it) of all changed output sizes of the failing operation.

    A reshape may be a copy and a view, and fails before the copy if the view's sizes are wrong.
    """
    failing = expected[operations : operations + 1]
    if failing and failing[0].op == "aten.clone":
        failing = expected[operations : operations + 2]
    return {
        (before, now) for each in failing for axes in each.outputs for _, before, now in axes or () if before != now
    }


def _candidates(
    module: nn.Module, name: str, lengths: Sequence[LengthChange], needed: Collection[tuple[int, int]], failure: Failure
) -> list[_Candidate]:
    """A module's integers that are worth trying, with the lengths that they may follow.

    In this order: arguments of the failing call, sizes that the failing operation needs, lengths of the module's own
    tensors.
    """
    passed = {(size.attribute, size.position) for size in failure.stored_sizes if size.module is module}
    prefix = f"{name}." if name else ""
    fitting = [
        (attribute, index, length)
        for attribute, index, value in stored_integers(module)
        for length in lengths
        if value == length.before
    ]

    def rank(candidate: tuple[str, int | None, LengthChange]) -> tuple[bool, bool, bool]:
        attribute, index, length = candidate
        return (
            (attribute, index) not in passed,
            (length.before, length.after) not in needed,
            not length.tensor.startswith(prefix),
        )

    found: dict[tuple[str, int | None, int], _Candidate] = {}
    for attribute, index, length in sorted(fitting, key=rank):
        if (attribute, index, length.after) not in found:
            found[attribute, index, length.after] = _candidate(name, module, attribute, index, length)
    return list(found.values())


def _candidate(name: str, module: nn.Module, attribute: str, index: int | None, length: LengthChange) -> _Candidate:
    """The candidate for an integer that may follow a length."""
    present = module.__dict__[attribute]
    changed = length.after if index is None else with_element(present, index, length.after)
    link = SizeLink(name, attribute, index, length.tensor, length.axis, divisor=length.divisor)
    return link, (module.__dict__, attribute, changed)
