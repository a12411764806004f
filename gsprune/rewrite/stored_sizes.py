"""Find the integers that user code stores about widths, when the smaller network does not run without them.

CleanRL's IMPALA asserts a stored ``_out_channels`` in its forward; torchvision's ViT keeps ``hidden_dim``. Such an
integer is changed only if the forward fails without it. The search is greedy: of the modules on the failing call's
stack, innermost first, one integer after the other that equals an old length is set to the new length, and kept where
the forward then gets further (counted in operations) or through.

Where two axes had one length, the link found may be to the wrong one. That shows when they part: then the forward fails
in the module that holds the link, which is given up and searched anew.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import nn

from gsprune.rewrite.attributes import Entry, Shape, with_element
from gsprune.rewrite.check import Failure, Run, run
from gsprune.rewrite.state import Example, SizeLink
from gsprune.rewrite.transaction import Transaction
from gsprune.tracing.graph import Graph

__all__ = ["Lengths", "Repair", "changed_lengths", "repaired"]


@dataclass(frozen=True, slots=True)
class Lengths:
    """One length that a step changes: of an axis, or of the part of it that one head has.

    Attributes:
        tensor: the tensor.
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


def changed_lengths(graph: Graph, after: Mapping[str, Shape]) -> list[Lengths]:
    """All lengths that change, whole axes first, each (before, after) once per tensor."""
    found: dict[tuple[str, int, int], Lengths] = {}
    for name, shape in graph.shapes.items():
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
    transaction: Transaction,
    budget: int,
    held: Mapping[tuple[str, str], Any],
) -> Repair:
    """Search integers that let the rewritten model run.

    Args:
        model: the rewritten network, whose forward fails.
        example: the call.
        lengths: what the step changed.
        transaction: records the changes.
        budget: how many forwards may be run.
        held: (module, attribute) of earlier links, which have been set already -> the value before that.
    """
    search = _Search(model, example, lengths, transaction, budget, dict(held))
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
        transaction: Transaction,
        budget: int,
        held: dict[tuple[str, str], Any],
    ) -> None:
        self.model, self.example, self.lengths, self.transaction = model, example, lengths, transaction
        self.budget, self.held = budget, held
        self.names = {id(module): name for name, module in model.named_modules()}
        self.links: list[SizeLink] = []
        self.given_up: set[tuple[str, str]] = set()
        self.forwards = 0
        self.present = self._run()

    def _run(self) -> Run:
        self.forwards += 1
        return run(self.model, self.example, count=True)

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
        """Find one integer with which the forward gets further; False where there is none or the budget is used up."""
        assert self.present.failure is not None
        for link, entry in _candidates(self.present.failure, self.names, self.lengths):
            if self.forwards >= self.budget:
                return False
            attempt, before = self._attempt([entry])
            if attempt.failure is None or attempt.operations > self.present.operations:
                self.links.append(link)
                self.present = attempt
                self._set_alike(link)
                return True
            self.transaction.set_entries(before)
        return False

    def _set_alike(self, link: SizeLink) -> None:
        """Set in the other modules of the class what helped in one, where that does no harm."""
        alike = _alike(self.model, link, self.lengths)
        if self.present.failure is None or self.forwards >= self.budget or not alike:
            return
        together, before = self._attempt([entry for _, entry in alike])
        if together.failure is None or together.operations >= self.present.operations:
            self.links += [other for other, _ in alike]
            self.present = together
        else:
            self.transaction.set_entries(before)


def _alike(model: nn.Module, link: SizeLink, lengths: Sequence[Lengths]) -> list[tuple[SizeLink, Entry]]:
    """The same attribute of all other modules of the class, where it holds the length of the same tensor of theirs.

    A network repeats its blocks: one by one they would use up the forwards.
    """
    modules = dict(model.named_modules())
    kind, prefix = type(modules[link.module]), f"{link.module}." if link.module else ""
    if not link.tensor.startswith(prefix):
        return []
    by_axis: dict[tuple[str, int], list[Lengths]] = {}
    for length in lengths:
        by_axis.setdefault((length.tensor, length.axis), []).append(length)
    found: list[tuple[SizeLink, Entry]] = []
    for name, module in modules.items():
        if type(module) is not kind or name == link.module:
            continue
        tensor = f"{name}.{link.tensor.removeprefix(prefix)}"
        present = module.__dict__.get(link.attribute)
        value = present if link.index is None or present is None else present[link.index]
        # Another stage may have more heads, of the same width.
        like = next((item for item in by_axis.get((tensor, link.axis), ()) if item.before == value), None)
        if like is None or (like.divisor == 1) != (link.divisor == 1):
            continue
        changed = like.after if link.index is None else with_element(present, link.index, like.after)
        other = SizeLink(name, link.attribute, link.index, tensor, link.axis, divisor=like.divisor)
        found.append((other, (module.__dict__, link.attribute, changed)))
    return found


def _candidates(
    failure: Failure, names: Mapping[int, str], lengths: Sequence[Lengths]
) -> Iterator[tuple[SizeLink, Entry]]:
    """Integers worth trying, innermost module first.

    Of one module: those that the message names, plain ones before tuples, lengths of its own tensors before others.
    """
    named = set(map(int, re.findall(r"\d+", failure.message)))
    for module in reversed(failure.modules):
        name = names.get(id(module))
        if name is None:
            continue
        prefix = f"{name}." if name else ""
        near = sorted(lengths, key=lambda length: not length.tensor.startswith(prefix))
        seen: set[tuple[str, int | None, int]] = set()
        stored = sorted(_stored_integers(module), key=lambda item: (item[2] not in named, item[1] is not None))
        for attribute, index, value in stored:
            for length in near:
                if value != length.before or (attribute, index, length.after) in seen:
                    continue
                seen.add((attribute, index, length.after))
                link = SizeLink(name, attribute, index, length.tensor, length.axis, divisor=length.divisor)
                present = module.__dict__[attribute]
                changed = length.after if index is None else with_element(present, index, length.after)
                yield link, (module.__dict__, attribute, changed)


def _stored_integers(module: nn.Module) -> Iterator[tuple[str, int | None, int]]:
    """(attribute, position in a tuple or list or None, value) of all integers that the module itself keeps."""
    for attribute, value in list(module.__dict__.items()):
        if isinstance(value, bool):
            continue
        if isinstance(value, int):
            yield attribute, None, value
        elif isinstance(value, tuple | list):
            for index, element in enumerate(value):
                if isinstance(element, int) and not isinstance(element, bool):
                    yield attribute, index, element
