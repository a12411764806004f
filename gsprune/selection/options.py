"""Options that are one number for all groups, or a mapping of globs to numbers."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from fnmatch import fnmatchcase
from numbers import Integral, Real
from typing import TypeVar

from gsprune.tracing.graph import Graph, Group

__all__ = ["checked_sparsity", "group_layers", "matching_groups", "per_group_count", "per_group_sparsity"]


def group_layers(group: Group) -> frozenset[str]:
    """Names under which a group can be asked for.

    They are its own name and those of the layers whose outputs are in it; a parameter that belongs to no layer (of the
    model itself) stands with its own name.
    """
    layers = {member.tensor.rpartition(".")[0] or member.tensor for member in group.members if member.role == "out"}
    return frozenset({group.name, *layers})


def matching_groups(graph: Graph, pattern: str) -> list[str]:
    """Names of the groups that a glob selects, in the graph's order.

    Args:
        graph: the groups.
        pattern: matched, case and all, against every name of `group_layers`.
    """
    return [group.name for group in graph.groups if any(fnmatchcase(name, pattern) for name in group_layers(group))]


def per_group_sparsity(spec: float | Mapping[str, float], graph: Graph) -> dict[str, float]:
    """The sparsity asked of every group.

    Args:
        spec: one number for all, or {glob: number}; a module's name stands for all layers inside it, of several globs
            that match a group the first counts, and a group that none matches is left alone.
        graph: the groups.

    Returns:
        group name -> sparsity in [0, 1).

    Raises:
        TypeError: something is not a number.
        ValueError: a number outside [0, 1), or a glob that matches no group.
    """
    if isinstance(spec, Mapping):
        checked = {pattern: checked_sparsity(f"sparsity[{pattern!r}]", value) for pattern, value in spec.items()}
        return _spread("sparsity", checked, graph, 0.0)
    value = checked_sparsity("sparsity", spec)
    return {group.name: value for group in graph.groups}


def per_group_count(argument: str, spec: int | Mapping[str, int], graph: Graph) -> dict[str, int]:
    """`round_to` or `min_channels` of every group.

    Args:
        argument: the option's name, for messages.
        spec: one number for all, or {glob: number}; the first glob that matches a group counts, 1 where none does.
        graph: the groups.

    Returns:
        group name -> number >= 1.

    Raises:
        TypeError: something is not a whole number.
        ValueError: a number below 1, or a glob that matches no group.
    """
    if isinstance(spec, Mapping):
        checked = {pattern: _count(f"{argument}[{pattern!r}]", value) for pattern, value in spec.items()}
        return _spread(argument, checked, graph, 1)
    value = _count(argument, spec)
    return {group.name: value for group in graph.groups}


_Number = TypeVar("_Number", int, float)


def _spread(argument: str, spec: Mapping[str, _Number], graph: Graph, default: _Number) -> dict[str, _Number]:
    values = {group.name: default for group in graph.groups}
    strangers = [pattern for pattern in spec if not isinstance(pattern, str)]
    if strangers:
        raise TypeError(f"`{argument}` must have globs of group or layer names as keys, got {strangers[0]!r}")
    for pattern in reversed(list(spec)):  # so that the first one has the last word
        names = matching_groups(graph, pattern) or matching_groups(graph, f"{pattern}.*")
        if not names:
            raise ValueError(_unmatched(argument, pattern, graph))
        values.update(dict.fromkeys(names, spec[pattern]))
    return values


def _unmatched(argument: str, pattern: str, graph: Graph) -> str:
    for protected in graph.protected:
        if any(fnmatchcase(name, pattern) for name in protected.names):
            return (
                f"`{argument}` names {pattern!r}, whose channels are never removed ({protected.reason}); "
                f"leave it out of `{argument}`"
            )
    known = sorted(set().union(*(group_layers(group) for group in graph.groups)) if graph.groups else set())
    near = difflib.get_close_matches(pattern, known, n=3) or [name for name in known if name.startswith(pattern)][:3]
    hint = f"near matches: {', '.join(map(repr, near))}" if near else f"there are: {', '.join(known[:8]) or 'none'}"
    return (
        f"`{argument}` names {pattern!r}, which matches no group and no layer of one; {hint} "
        f"(print(gsprune.trace(model)) shows all)"
    )


def checked_sparsity(argument: str, value: object) -> float:
    """A sparsity as a float.

    Args:
        argument: the option's name, for messages.
        value: what was given.

    Raises:
        TypeError: it is not a number.
        ValueError: it is outside [0, 1).
    """
    if not isinstance(value, float) and (isinstance(value, bool) or not isinstance(value, Real)):
        raise TypeError(f"`{argument}` must be a number in [0, 1), got {value!r}")
    number = float(value)
    if not 0.0 <= number < 1.0:
        raise ValueError(
            f"`{argument}` must be in [0, 1), the fraction of the first-seen width that is gone, got {value!r}"
        )
    return number


def _count(argument: str, value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, Integral):
        raise TypeError(f"`{argument}` must be a whole number >= 1, got {value!r}")
    number = int(value)
    if number < 1:
        raise ValueError(f"`{argument}` must be >= 1, got {number}")
    return number
