"""Links that the stored integers of user modules may have, when a smaller network fails without them."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from gsprune.rewrite.length_changes import LengthChange, Sizes
from gsprune.rewrite.size_links import IntegerKey, SizeLink
from gsprune.rewrite.stored_sizes import stored_integers

__all__ = ["link_to", "links_of_arguments", "links_of_module"]


def link_to(key: IntegerKey, length: LengthChange) -> SizeLink:
    """The link of a stored integer that follows a length."""
    return SizeLink(*key, length.tensor, length.axis, length.multiplier, length.divisor)


def links_of_module(
    name: str, module: nn.Module, lengths: Sequence[LengthChange], needed: Sizes, arguments: Sequence[IntegerKey]
) -> list[SizeLink]:
    """Links of a module's integers to lengths that they have.

    In this order: arguments of the failing call, sizes that the failing operation needs, lengths of the module's own
    tensors. Of several links with which an integer would get the same value, only the first is returned.
    """
    keys = [((name, attribute, index), value) for attribute, index, value in stored_integers(module)]
    fitting = [(key, length) for key, value in keys for length in lengths if value == length.before]
    fitting.sort(key=lambda pair: (pair[0] not in arguments, not pair[1].is_one_of(needed), not pair[1].is_in(name)))
    found: dict[tuple[IntegerKey, int], SizeLink] = {}
    for key, length in fitting:
        found.setdefault((key, length.after), link_to(key, length))
    return list(found.values())


def links_of_arguments(
    arguments: Sequence[tuple[IntegerKey, int]], lengths: Sequence[LengthChange], needed: Sizes, *, also_own: bool
) -> list[SizeLink]:
    """Links of the stored integers that the failing call got, to lengths that it needs: the sizes of a split.

    With `also_own`, the others follow their modules' own axes: in ``[size, width - size]``, the width is no size of a
    part.
    """
    found: list[SizeLink] = []
    for key, value in arguments:
        fitting = [
            length
            for length in lengths
            if length.before == value
            and (length.is_one_of(needed) or (also_own and length.divisor == 1 and length.is_in(key[0])))
        ]
        if fitting:
            ranks = [
                (not each.is_one_of(needed), not each.is_in(key[0]), (each.multiplier, each.divisor) != (1, 1))
                for each in fitting
            ]
            found.append(link_to(key, fitting[ranks.index(min(ranks))]))
    return found
