"""Finds a stored integer in all modules of a class, after its link was found in one of them.

Networks have many equal blocks, and a search in each of them would use up the forwards.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import nn

from gsprune.rewrite.length_changes import LengthChange
from gsprune.rewrite.link_search import link_to
from gsprune.rewrite.size_links import IntegerKey, SizeLink

__all__ = ["links_of_equal_modules"]


def links_of_equal_modules(
    link: SizeLink,
    modules: Mapping[str, nn.Module],
    lengths: Sequence[LengthChange],
    values_before: Mapping[IntegerKey, int],
) -> list[SizeLink]:
    """Links of the same attribute in all other modules of the class, if it held a length that changes.

    `values_before` has the earlier values of integers that the search has set.
    """
    first = modules[link.module]
    found: list[SizeLink] = []
    for name, module in modules.items():
        if type(module) is not type(first) or name == link.module:
            continue
        value = module.__dict__.get(link.attribute)
        for index, present in _same_position(value, first.__dict__[link.attribute], link.index):
            key = name, link.attribute, index
            length = _same_length(link, name, values_before.get(key, present), lengths)
            if length is not None and length.after != present:
                found.append(link_to(key, length))
    return found


def _same_position(value: Any, stored: Any, index: int | None) -> Sequence[tuple[int | None, Any]]:
    """(position, integer) of the elements of `value` that correspond to the element `index` of `stored`.

    `value` may be a shorter list, or a longer one, whose further elements correspond to the last one of `stored`.
    """
    if index is None:
        return [(None, value)]
    elements = list(enumerate(value)) if isinstance(value, tuple | list) else []
    return elements[index : None if index == len(stored) - 1 else index + 1]


def _same_length(link: SizeLink, module: str, value: Any, lengths: Sequence[LengthChange]) -> LengthChange | None:
    """The length in another module that corresponds to a link's; `value` is what it must have been before the step."""
    fitting = [length for length in lengths if length.before == value]
    prefix = f"{link.module}." if link.module else ""
    is_own = link.tensor.startswith(prefix)
    # A module without tensors follows the same tensor as the other module.
    tensor = f"{module}.{link.tensor.removeprefix(prefix)}" if is_own else link.tensor
    for length in fitting:
        # Another stage may have more heads, of the same width.
        if (length.tensor, length.axis) == (tensor, link.axis) and (length.divisor == 1) == (link.divisor == 1):
            return length
    own = [length for length in fitting if length.is_in(module)]
    return own[0] if is_own and len({length.after for length in own}) == 1 else None
