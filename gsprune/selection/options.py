"""The options of a selection, and options that are one number for all groups or {glob: number}."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any, Literal, TypeVar, get_args

from gsprune.checks import check_choice, check_number, check_whole
from gsprune.tracing.graph import Graph, Group

__all__ = [
    "SCOPES",
    "TARGETS",
    "Scope",
    "Selection",
    "Target",
    "group_layers",
    "matching_groups",
    "per_group",
]

Scope = Literal["local", "global", "isomorphic"]
Target = Literal["channels", "params", "macs"]
SCOPES: tuple[Scope, ...] = get_args(Scope)
TARGETS: tuple[Target, ...] = get_args(Target)

_Number = TypeVar("_Number", int, float)


@dataclass(frozen=True, slots=True)
class Selection:
    """The options of a selection.

    Attributes:
        sparsity: in [0, 1), cumulative; or {glob of group or layer names: number} with scope "local" and target
            "channels".
        scope: "local": the same ratio in every group; "global": one threshold over all scores; "isomorphic": one for
            every kind of group.
        target: the unit of `sparsity`. "channels": the fraction of every group's width (local), or of the total width
            of groups that are compared with each other. "params" and "macs": the fraction of the network's total.
        round_to: the multiple to which widths are rounded up; narrower groups stay as they are; or {glob: number}.
        min_channels: the smallest width; or {glob: number}.
        parameters: names of the tensors that are parameters, for target "params".

    Raises:
        ValueError: an unknown scope or target, or a number out of range.
        TypeError: a value is not a number, or a glob is not a string.
    """

    sparsity: float | Mapping[str, float]
    scope: Scope = "local"
    target: Target = "channels"
    round_to: int | Mapping[str, int] = 1
    min_channels: int | Mapping[str, int] = 1
    parameters: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        check_choice("scope", self.scope, SCOPES)
        check_choice("target", self.target, TARGETS)
        object.__setattr__(self, "sparsity", _checked("sparsity", self.sparsity, _check_sparsity))
        object.__setattr__(self, "round_to", _checked("round_to", self.round_to, _check_count))
        object.__setattr__(self, "min_channels", _checked("min_channels", self.min_channels, _check_count))


def group_layers(group: Group) -> frozenset[str]:
    """Names that select a group: its own name and the names of the layers whose outputs are in it.

    A parameter of the model itself belongs to no layer and is listed by its own name.
    """
    return frozenset({group.name, *group.layers("out")})


def matching_groups(graph: Graph, pattern: str) -> list[str]:
    """Names of the groups of which a glob matches a name of `group_layers`, case-sensitively, in the graph's order."""
    return [group.name for group in graph.groups if any(fnmatchcase(name, pattern) for name in group_layers(group))]


def per_group(argument: str, spec: _Number | Mapping[str, _Number], graph: Graph, default: _Number) -> list[_Number]:
    """The value of an option of a `Selection` for every group, in the graph's order.

    In {glob: number}, a module's name stands for all layers inside it. If several globs match a group, the first one
    wins. `argument` is the option's name, for messages.

    Raises:
        ValueError: a glob matches no group.
    """
    if not isinstance(spec, Mapping):
        return [spec] * len(graph.groups)
    values = {group.name: default for group in graph.groups}
    for pattern in reversed(list(spec)):  # the first glob overwrites the later ones
        names = matching_groups(graph, pattern) or matching_groups(graph, f"{pattern}.*")
        if not names:
            raise ValueError(_unmatched_text(argument, pattern, graph))
        values.update(dict.fromkeys(names, spec[pattern]))
    return list(values.values())


def _checked(
    argument: str, spec: _Number | Mapping[str, _Number], check: Callable[[str, Any], _Number]
) -> _Number | dict[str, _Number]:
    """A number, or the numbers of a mapping of globs, each checked."""
    if isinstance(spec, (int, float)) or not isinstance(spec, Mapping):  # abstract classes are slow
        return check(argument, spec)
    for pattern in spec:
        if not isinstance(pattern, str):
            raise TypeError(f"`{argument}` must have globs of group or layer names as keys, got {pattern!r}")
    return {pattern: check(f"{argument}[{pattern!r}]", value) for pattern, value in spec.items()}


def _check_sparsity(argument: str, value: object) -> float:
    meaning = "the fraction of the first-seen width that is removed"
    return check_number(argument, value, at_least=0, below=1, meaning=meaning)


def _check_count(argument: str, value: object) -> int:
    return check_whole(argument, value, at_least=1)


def _unmatched_text(argument: str, pattern: str, graph: Graph) -> str:
    for protected in graph.protected:
        if any(fnmatchcase(name, pattern) for name in protected.names):
            return (
                f"`{argument}` names {pattern!r}, whose channels are never removed ({protected.reason}); "
                f"leave it out of `{argument}`"
            )
    names = sorted(set().union(*(group_layers(group) for group in graph.groups)) if graph.groups else set())
    near = difflib.get_close_matches(pattern, names, n=3) or [name for name in names if name.startswith(pattern)][:3]
    hint = f"near matches: {', '.join(map(repr, near))}" if near else f"there are: {', '.join(names[:8]) or 'none'}"
    return (
        f"`{argument}` names {pattern!r}, which matches no group and no layer of one; {hint} "
        f"(print(gsprune.trace(model)) shows all)"
    )
