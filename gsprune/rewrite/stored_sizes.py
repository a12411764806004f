"""Find the integers that user code stores about widths, when the smaller network does not run without them.

CleanRL's IMPALA asserts a stored ``_out_channels`` in its forward; torchvision's ViT keeps ``hidden_dim``. Such an
integer is changed only if the forward fails without it. The search is greedy: of the modules on the failing call's
stack, innermost first, one integer after the other that equals an old length is set to the new length, and kept where
the forward then gets further (counted in operations) or through.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from torch import nn

from gsprune.rewrite.attributes import Entry, Shape, with_element
from gsprune.rewrite.check import Failure, Run, run
from gsprune.rewrite.state import Example, SizeLink
from gsprune.rewrite.transaction import Transaction
from gsprune.tracing.graph import Graph

__all__ = ["Lengths", "changed_lengths", "repaired"]


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
) -> tuple[tuple[SizeLink, ...], Run, int]:
    """Search integers that let the rewritten model run.

    Args:
        model: the rewritten network, whose forward fails.
        example: the call.
        lengths: what the step changed.
        transaction: records the changes.
        budget: how many forwards may be run.

    Returns:
        the links found, the last run (its `failure` is None where the search succeeded), and the forwards used.
    """
    names = {id(module): name for name, module in model.named_modules()}
    links: list[SizeLink] = []
    used = 1
    present = run(model, example, count=True)
    while present.failure is not None and used < budget:
        further = None
        for link, entry in _candidates(present.failure, names, lengths):
            if used >= budget:
                break
            before = (entry[0], entry[1], entry[0][entry[1]])
            transaction.set_entries([entry])
            attempt = run(model, example, count=True)
            used += 1
            if attempt.failure is None or attempt.operations > present.operations:
                links.append(link)
                further = attempt
                if attempt.failure is None or used >= budget:
                    break
                alike = _alike(model, link, lengths)
                if alike:
                    before_all = [(entry[0], entry[1], entry[0][entry[1]]) for _, entry in alike]
                    transaction.set_entries([entry for _, entry in alike])
                    together = run(model, example, count=True)
                    used += 1
                    if together.failure is None or together.operations >= attempt.operations:
                        links += [other for other, _ in alike]
                        further = together
                    else:
                        transaction.set_entries(before_all)
                break
            transaction.set_entries([before])
        if further is None:
            break
        present = further
    return tuple(links), present, used


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
