"""Find the integers that user code stores about widths, when the smaller network does not run without them.

CleanRL's IMPALA asserts a stored ``_out_channels`` in its forward; torchvision's ViT keeps ``hidden_dim``. Such an
integer is changed only if the forward fails without it, or makes a tensor of another size than the trace foretells. The
search is greedy: of the modules on the failing call's stack, innermost first, one integer after the other that equals
an old length is set to the new length, and kept where the forward then gets further (counted in operations that make
what they must) or through. Sizes that the failing operation asked for are tried first.

Where two axes had one length, the link found may be to the wrong one. That shows when they part: then the forward fails
in the module that holds the link, which is given up and searched anew.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import nn

from gsprune.rewrite.check import Failure, Run, run
from gsprune.rewrite.size_links import Entry, Shape, SizeLink, is_in_table, with_element
from gsprune.rewrite.stored_sizes import Place, stored_integers
from gsprune.rewrite.transaction import Transaction
from gsprune.tracing.example import Example
from gsprune.tracing.graph import Graph
from gsprune.tracing.structure import Due

__all__ = ["Lengths", "Repair", "changed_lengths", "lengths_of", "repaired"]

_Candidate = tuple[SizeLink, Entry]


@dataclass(frozen=True, slots=True)
class Lengths:
    """One length that a step changes: of an axis, or of the part of it that one head has.

    Attributes:
        tensor: the tensor, or a group's units (`lengths_of`).
        axis: its axis.
        divisor: number of heads.
        before: length before the step.
        after: length after it.
    """

    tensor: str
    axis: int
    divisor: int
    before: int
    after: int


@dataclass(frozen=True, slots=True)
class Repair:
    """What a search came to.

    Attributes:
        links: what it found.
        given_up: (module, attribute) of earlier links that turned out wrong.
        run: the last run; its `failure` is None where the search succeeded.
        forwards: how many were run.
    """

    links: tuple[SizeLink, ...]
    given_up: frozenset[tuple[str, str]]
    run: Run
    forwards: int


def lengths_of(graph: Graph) -> dict[str, Shape]:
    """Shapes of all tensors, and the number of units of every group: the size of a split's part may be no axis's."""
    return {**graph.shapes, **{f"{group.name}.units": (group.num_units,) for group in graph.groups}}


def changed_lengths(graph: Graph, after: Mapping[str, Shape]) -> list[Lengths]:
    """All lengths that change, whole axes first, each (before, after) once per tensor; `after` as of `lengths_of`."""
    found: dict[tuple[str, int, int], Lengths] = {}
    for name, shape in lengths_of(graph).items():
        for axis, (old, new) in enumerate(zip(shape, after[name], strict=True)):
            if old != new:
                found[name, axis, 1] = Lengths(name, axis, 1, old, new)
    for group in graph.groups:
        for member in group.members:
            length = graph.shapes[member.tensor][member.axis]
            if group.num_units and length != group.num_units and length % group.num_units == 0:
                heads = length // group.num_units
                new = after[member.tensor][member.axis] // heads
                if new != group.num_units:
                    key = (member.tensor, member.axis, heads)
                    found[key] = Lengths(member.tensor, member.axis, heads, group.num_units, new)
    return list(found.values())


def repaired(
    model: nn.Module,
    example: Example,
    lengths: Sequence[Lengths],
    due: Sequence[Due],
    transaction: Transaction,
    budget: int,
    held: Mapping[tuple[str, str], Any],
) -> Repair:
    """Search integers that let the rewritten model run.

    Args:
        model: the rewritten network, whose forward fails.
        example: the call.
        lengths: what the step changed.
        due: what the operations must make.
        transaction: records the changes.
        budget: how many forwards may be run.
        held: (module, attribute) of earlier links, which have been set already -> the value before that.
    """
    search = _Search(model, example, lengths, due, transaction, budget, dict(held))
    while search.present.failure is not None and search.forwards < budget:
        if not search.give_up_link() and not search.find_link():
            break
    return Repair(tuple(search.links), frozenset(search.given_up), search.present, search.forwards)


class _Search:
    """The search's state; arguments as of `repaired`."""

    def __init__(
        self,
        model: nn.Module,
        example: Example,
        lengths: Sequence[Lengths],
        due: Sequence[Due],
        transaction: Transaction,
        budget: int,
        held: dict[tuple[str, str], Any],
    ) -> None:
        self.model, self.example, self.lengths, self.transaction = model, example, lengths, transaction
        self.due = due
        self.budget, self.held = budget, held
        self.names = {id(module): name for name, module in model.named_modules()}
        self.links: list[SizeLink] = []
        self.given_up: set[tuple[str, str]] = set()
        self.alike: dict[tuple[str, str, int | None], Any] = {}  # what `_set_alike` set -> the attribute before that
        self.forwards = 0
        self.present = self._run()

    def _run(self) -> Run:
        self.forwards += 1
        return run(self.model, self.example, self.due, places=True)

    def _attempt(self, entries: Sequence[Entry]) -> tuple[Run, list[Entry]]:
        """Run with `entries` set; returns the run and what takes them back."""
        before = [(owner, attribute, owner[attribute]) for owner, attribute, _ in entries]
        self.transaction.set_entries(entries)
        return self._run(), before

    def give_up_link(self) -> bool:
        """Take back the earlier links of the innermost failing module that has any; False where none has."""
        assert self.present.failure is not None
        for module in reversed(self.present.failure.modules):
            name = self.names.get(id(module))
            keys = [key for key in self.held if key[0] == name]
            if not keys:
                continue
            attempt, before = self._attempt([(module.__dict__, key[1], self.held.pop(key)) for key in keys])
            if attempt.failure is None or attempt.operations >= self.present.operations:
                self.given_up.update(keys)
                self.present = attempt
            else:
                self.transaction.set_entries(before)
            return True
        return False

    def find_link(self) -> bool:
        """Find an integer with which the forward gets further; False where there is none or the budget is used up."""
        failure, asked = self.present.failure, _asked(self.due, self.present.operations)
        assert failure is not None
        given = {(id(place.module), place.attribute, place.position) for place in failure.places}
        if any(self._take_back_alike(place) for place in failure.places):
            return True
        lengths = [*self.lengths, *_parts(self.lengths, asked)]
        together = self._asked_together(failure, asked, lengths)
        if len(together) > 1 and self._gets_further(together, lengths):
            return True
        for module in self._suspects(failure):
            candidates = _candidates(module, self.names[id(module)], lengths, asked, failure)
            if any(self._gets_further([candidate], lengths) for candidate in candidates):
                return True
            # What the failing call was given must change; but the code may compare it with another first, or add it.
            for candidate in candidates:
                if (id(module), candidate[0].attribute, candidate[0].index) in given and any(
                    self._gets_further([candidate, other], lengths)
                    for other in candidates
                    if (other[0].attribute, other[0].index) != (candidate[0].attribute, candidate[0].index)
                ):
                    return True
        return False

    def _asked_together(
        self, failure: Failure, asked: Collection[tuple[int, int]], lengths: Sequence[Lengths]
    ) -> list[_Candidate]:
        """All integers that the failing call was given, each as the operation must have it: the sizes of a split."""
        found: list[_Candidate] = []
        for place in dict.fromkeys(failure.places):
            name = self.names.get(id(place.module), "")
            prefix = f"{name}." if name else ""
            value = place.value
            best = min(
                (length for length in lengths if length.before == value and (value, length.after) in asked),
                key=lambda length: (not length.tensor.startswith(prefix), length.divisor != 1),
                default=None,
            )
            if best is not None:
                found.append(_candidate(name, place.module, place.attribute, place.position, best))
        return found

    def _take_back_alike(self, place: Place) -> bool:
        """Whether the forward gets further without what was set because it helped another module of the class.

        That may be wrong for all sizes of a module, or for the one at hand.
        """
        name = self.names.get(id(place.module), "")
        mine = [key for key in self.alike if key[0] == name]
        wrong = (name, place.attribute, place.position)
        if wrong not in mine:
            return False
        for keys in (mine, [wrong]) if len(mine) > 1 else ([wrong],):
            if self.forwards >= self.budget:
                return False
            attempt, before = self._attempt([(place.module.__dict__, key[1], self.alike[key]) for key in keys])
            if attempt.failure is None or attempt.operations > self.present.operations:
                self.present = attempt
                self.links = [link for link in self.links if (link.module, link.attribute, link.index) not in keys]
                self.alike = {key: value for key, value in self.alike.items() if key not in keys}
                return True
            self.transaction.set_entries(before)
        return False

    def _suspects(self, failure: Failure) -> list[nn.Module]:
        """User modules that may keep the size: those whose numbers the failing call was given, then the innermost."""
        modules = (*(place.module for place in failure.places), *reversed(failure.modules))
        once = {id(module): module for module in modules if id(module) in self.names and not is_in_table(module)}
        return list(once.values())

    def _gets_further(self, candidates: Sequence[_Candidate], lengths: Sequence[Lengths]) -> bool:
        """Try integers together, and keep them where they help; False also where the budget is used up."""
        if self.forwards >= self.budget:
            return False
        attempt, before = self._attempt(_entries(candidates))
        if attempt.failure is None or attempt.operations > self.present.operations:
            self.present = attempt
            links = [link for link, _ in candidates]
            self.links += links
            self._set_alike(links, lengths)
            return True
        self.transaction.set_entries(before)
        return False

    def _set_alike(self, links: Sequence[SizeLink], lengths: Sequence[Lengths]) -> None:
        """Set in the other modules of the class what helped in one, where that does no harm."""
        alike = [other for link in links for other in _alike(self.model, link, lengths)]
        if self.present.failure is None or self.forwards >= self.budget or not alike:
            return
        together, before = self._attempt(_entries(alike))
        if together.failure is None or together.operations >= self.present.operations:
            values = {(id(owner), attribute): value for owner, attribute, value in before}
            for other, (owner, attribute, _) in alike:
                self.links.append(other)
                self.alike[other.module, other.attribute, other.index] = values[id(owner), attribute]
            self.present = together
        else:
            self.transaction.set_entries(before)


def _alike(model: nn.Module, link: SizeLink, lengths: Sequence[Lengths]) -> list[_Candidate]:
    """The same attribute of all other modules of the class, where it holds a length of their own tensors.

    A network repeats its blocks: one by one they would use up the forwards.
    """
    modules = dict(model.named_modules())
    kind, prefix = type(modules[link.module]), f"{link.module}." if link.module else ""
    is_near = link.tensor.startswith(prefix)
    found: list[_Candidate] = []
    for name, module in modules.items():
        if type(module) is not kind or name == link.module:
            continue
        present = module.__dict__.get(link.attribute)
        value = present if link.index is None or present is None else present[link.index]
        own = [length for length in lengths if length.before == value and length.tensor.startswith(f"{name}.")]
        same = f"{name}.{link.tensor.removeprefix(prefix)}", link.axis
        # Another stage may have more heads, of the same width.
        best = [length for length in own if (length.tensor, length.axis) == same and _suits(length, link)]
        if not is_near:  # a module without tensors follows the one that its like follows
            best = [length for length in lengths if (length.tensor, length.axis) == (link.tensor, link.axis)]
            best = [length for length in best if length.before == value and _suits(length, link)]
        elif not best and len({length.after for length in own}) == 1:
            best = own
        if best:
            found.append(_candidate(name, module, link.attribute, link.index, best[0]))
    return found


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


def _suits(length: Lengths, link: SizeLink) -> bool:
    """Whether both speak of whole axes, or both of parts."""
    return (length.divisor == 1) == (link.divisor == 1)


def _parts(lengths: Sequence[Lengths], asked: Collection[tuple[int, int]]) -> list[Lengths]:
    """Equal parts of whole axes, of the sizes asked for: several heads may shrink as one unit."""
    return [
        Lengths(length.tensor, length.axis, length.before // before, before, now)
        for length in lengths
        for before, now in asked
        if length.divisor == 1 and length.before > before and length.before % before == 0
        if length.before // before * now == length.after
    ]


def _asked(due: Sequence[Due], operations: int) -> set[tuple[int, int]]:
    """(before the step, after it) of all sizes that the operation must make which failed."""
    if operations >= len(due):
        return set()
    return {(before, now) for axes in due[operations].outputs for _, before, now in axes or () if before != now}


def _candidates(
    module: nn.Module, name: str, lengths: Sequence[Lengths], asked: Collection[tuple[int, int]], failure: Failure
) -> list[_Candidate]:
    """A module's integers that are worth trying, with the lengths that they may follow.

    In this order: what the failing call was given, sizes that the failing operation must make, lengths of the module's
    own tensors, integers that the message names, plain ones before tuples.
    """
    given = {(place.attribute, place.position) for place in failure.places if place.module is module}
    named = set(map(int, re.findall(r"\d+", failure.message)))
    prefix = f"{name}." if name else ""
    ranked = [
        (
            (attribute, index) not in given,
            (length.before, length.after) not in asked,
            not length.tensor.startswith(prefix),
            length.before not in named,
            index is not None,
            order,
            (attribute, index, length),
        )
        for order, (attribute, index, length) in enumerate(
            (attribute, index, length)
            for attribute, index, value in stored_integers(module)
            for length in lengths
            if value == length.before
        )
    ]
    found: dict[tuple[str, int | None, int], _Candidate] = {}
    for *_, (attribute, index, length) in sorted(ranked, key=lambda item: item[:-1]):
        if (attribute, index, length.after) not in found:
            found[attribute, index, length.after] = _candidate(name, module, attribute, index, length)
    return list(found.values())


def _candidate(name: str, module: nn.Module, attribute: str, index: int | None, length: Lengths) -> _Candidate:
    """Let an integer follow a length."""
    present = module.__dict__[attribute]
    changed = length.after if index is None else with_element(present, index, length.after)
    link = SizeLink(name, attribute, index, length.tensor, length.axis, divisor=length.divisor)
    return link, (module.__dict__, attribute, changed)
