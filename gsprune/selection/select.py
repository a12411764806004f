"""Which units go: local, global and isomorphic scope, against channels, parameters or MACs.

`sparsity` is cumulative: the fraction of what the network had when first seen. Never more than that goes, so that a
request repeated, or a smaller one, changes nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal, get_args

import numpy as np
import numpy.typing as npt

from gsprune import _core
from gsprune.backends import Backend, select_groups
from gsprune.selection.cost import CostModel
from gsprune.selection.flips import Chain, IntVector, cost_floor, merged_chain, ratio_chain
from gsprune.selection.options import checked_sparsity, per_group_count, per_group_sparsity
from gsprune.selection.widths import Limits
from gsprune.tracing.graph import Graph, IntArray
from gsprune.tracing.structure import Structure

__all__ = ["SCOPES", "TARGETS", "Scope", "Selection", "Target", "limits_of", "select", "select_units"]

Scope = Literal["local", "global", "isomorphic"]
Target = Literal["channels", "params", "macs"]
SCOPES: tuple[Scope, ...] = get_args(Scope)
TARGETS: tuple[Target, ...] = get_args(Target)
Scores = Mapping[str, npt.NDArray[np.float32]]
Sparsity = float | Mapping[str, float]
Count = int | Mapping[str, int]

# No width reaches it: a larger multiple or minimum means the same, and fits int64.
_WIDEST = 2**40


def select(
    graph: Graph,
    scores: Scores,
    initial_widths: Mapping[str, int],
    sparsity: Sparsity,
    *,
    backend: Backend,
    scope: Scope = "local",
    target: Target = "channels",
    round_to: Count = 1,
    min_channels: Count = 1,
    frozen: Collection[str] = frozenset(),
    parameters: Iterable[str] = (),
) -> dict[str, IntArray]:
    """The units that must go to reach a sparsity.

    Args:
        graph: the groups of the network as it is now.
        scores: group name -> (num_units,) float32, higher = keep; needed for groups that may lose units.
        initial_widths: group name -> first-seen width; a group that is not listed is seen now.
        sparsity: in [0, 1), or {glob of group or layer names: number} with scope "local" and target "channels".
        backend: picks the indices.
        scope: "local": the same ratio in every group; "global": one threshold over all scores; "isomorphic": one for
            every kind of group.
        target: what `sparsity` is a fraction of. "channels": of every group's width (local), or of the sum of those
            compared with each other; "params" and "macs": of the whole network's, solved to the last flip.
        round_to: widths are rounded up to a multiple, groups narrower than it are left alone; or {glob: number}.
        min_channels: no width goes below it; or {glob: number}.
        frozen: names of groups whose width stays; they count in "params" and "macs", not in "channels".
        parameters: names of the tensors that are parameters, for target "params".

    Returns:
        group name -> sorted int64 units; only groups that lose some.

    Raises:
        ValueError: a bad option, a glob that matches nothing, or scores that are missing or of another shape or dtype.
        TypeError: an option that is not a number.
    """
    structure = Structure.of(graph)
    request = Selection(sparsity, scope, target, round_to, min_channels, tuple(parameters))
    bounds = structure.first_unit.tolist()
    flat = np.zeros(structure.num_units, dtype=np.float32)
    for group, first, last in zip(graph.groups, bounds, bounds[1:], strict=False):
        given = None if group.name in frozen else scores.get(group.name)
        if given is not None:
            if given.shape != (last - first,) or given.dtype != np.float32:
                raise ValueError(
                    f"`scores[{group.name!r}]` must be ({last - first},) float32, got {given.shape} {given.dtype}"
                )
            flat[first:last] = given
    gone = ~select_units(structure, flat, initial_widths, request, backend=backend, frozen=frozenset(frozen))
    removed = {
        group.name: np.flatnonzero(gone[first:last])
        for group, first, last in zip(graph.groups, bounds, bounds[1:], strict=False)
        if gone[first:last].any()
    }
    missing = sorted(removed.keys() - scores.keys())
    if missing:
        raise ValueError(f"`scores` must hold the scores of every group that may lose units, {missing[0]!r} is missing")
    return removed


@dataclass(frozen=True, slots=True)
class Selection:
    """What is asked of a selection; see `select`."""

    sparsity: Sparsity
    scope: Scope = "local"
    target: Target = "channels"
    round_to: Count = 1
    min_channels: Count = 1
    parameters: tuple[str, ...] = ()


def select_units(
    structure: Structure,
    scores: npt.NDArray[np.float32],
    initial_widths: Mapping[str, int],
    request: Selection,
    *,
    backend: Backend,
    frozen: frozenset[str] = frozenset(),
) -> npt.NDArray[np.bool_]:
    """`select` for a network whose structure is known.

    Args:
        structure: the network's groups as they are now.
        scores: (units,) float32 over all groups, higher = keep; those of frozen groups are not compared.
        initial_widths: group name -> first-seen width.
        request: what is asked for.
        backend: picks the indices.
        frozen: names of groups whose width stays.

    Returns:
        (units,) bool over all groups of the structure: which are kept.
    """
    _check_choice("scope", request.scope, SCOPES)
    _check_choice("target", request.target, TARGETS)
    if request.scope == "local" and request.target == "channels":
        limits = _limit_table(structure, initial_widths, request, frozen)
        kept = _core.kept_units(limits, structure.first_unit, _asked(request.sparsity, structure.traced))
    else:
        kept = _kept_units(structure, scores, limits_of(structure, initial_widths, request, frozen), request)
    return select_groups(backend, scores, structure.first_unit, kept)


def _limit_table(
    structure: Structure, initial_widths: Mapping[str, int], request: Selection, frozen: frozenset[str]
) -> npt.NDArray[np.int64]:
    """`limits_of` as (groups, 5) int64: initial, width_per_unit, multiple, min_channels, frozen.

    None of it changes while a network shrinks; what mappings ask for is looked up anew, since they may have changed.
    """
    options = (request.round_to, request.min_channels)
    is_plain = all(type(option) is int for option in options)  # True is equal to 1, and yet an error
    key = ("limits", *options, frozen) if is_plain else None
    known: tuple[dict[str, int], npt.NDArray[np.int64]] | None = structure.shared.get(key)
    if known is not None and known[0] == initial_widths:
        return known[1]
    limits = limits_of(structure, initial_widths, request, frozen)
    rows = [
        (
            limit.initial,
            limit.width_per_unit,
            min(limit.multiple, _WIDEST // limit.width_per_unit * limit.width_per_unit),
            min(limit.min_channels, _WIDEST),
            limit.frozen,
        )
        for limit in limits
    ]
    table = np.array(rows, dtype=np.int64).reshape(len(limits), 5)
    if key is not None:
        structure.shared[key] = (dict(initial_widths), table)
    return table


def _asked(sparsity: Sparsity, graph: Graph) -> npt.NDArray[np.float64] | float:
    """(groups,) the sparsity asked of every group, or the one that is asked of all."""
    if not isinstance(sparsity, float) and isinstance(sparsity, Mapping):
        return np.array(list(per_group_sparsity(sparsity, graph).values()), dtype=np.float64)
    return checked_sparsity("sparsity", sparsity)


def limits_of(
    structure: Structure, initial_widths: Mapping[str, int], request: Selection, frozen: Collection[str]
) -> list[Limits]:
    """The widths that every group may take, in the structure's order."""
    graph = structure.traced
    multiples = per_group_count("round_to", request.round_to, graph)
    floors = per_group_count("min_channels", request.min_channels, graph)
    return [
        Limits(
            initial=initial_widths.get(group.name, group.width),
            present=units * group.width_per_unit,
            width_per_unit=group.width_per_unit,
            round_to=multiples[group.name],
            min_channels=floors[group.name],
            frozen=group.name in frozen,
        )
        for group, units in zip(graph.groups, structure.units_of_groups(), strict=True)
    ]


def _kept_units(
    structure: Structure, scores: npt.NDArray[np.float32], limits: list[Limits], request: Selection
) -> IntVector:
    """(groups,) int64, units kept of every group, for all but local scope with target "channels"."""
    scope, target, sparsity = request.scope, request.target, request.sparsity
    graph = structure.traced
    per_group_sparsity(sparsity, graph)  # refuses what is none
    if isinstance(sparsity, Mapping):
        raise ValueError(
            f"`sparsity` can be a mapping only with scope='local' and target='channels', got scope={scope!r} and "
            f"target={target!r}; give one number"
        )
    if scope == "local":
        cost = _cost_model(structure.graph, request)
        return ratio_chain(limits).within(cost_floor(cost(_initial_units(limits)), sparsity), cost)
    pools = [group.kind if scope == "isomorphic" else "all" for group in graph.groups]
    bounds = structure.first_unit.tolist()
    ordered = [scores[first:last] for first, last in pairwise(bounds)]
    if target != "channels":
        return _solve_scored(merged_chain(limits, ordered, pools), sparsity, _cost_model(structure.graph, request))
    present = _units(limits, [limit.present for limit in limits])
    units = present
    for pool in dict.fromkeys(pools):
        inside = [
            limit._replace(frozen=limit.frozen or other != pool) for limit, other in zip(limits, pools, strict=True)
        ]
        # Groups of other pools are frozen here, so that the differences of all solutions add up.
        units = units + _solve_scored(merged_chain(inside, ordered, pools), sparsity, _unfrozen_width(inside)) - present
    return units


def _solve_scored(chain: Chain, sparsity: float, cost: Callable[[IntVector], float]) -> IntVector:
    """Units after as much of a chain of scored flips as the sparsity allows.

    Scores change with every step. Were the rest of a budget spent on whatever flip the new scores put first, a repeated
    request would go on removing; so nothing is done until the budget covers the dearest flip there is.
    """
    present = _units(chain.limits, [limit.present for limit in chain.limits])
    floor = cost_floor(cost(_initial_units(chain.limits)), sparsity)
    now = cost(present)
    dearest = 0.0
    for index, limit in enumerate(chain.limits):
        flipped = present.copy()
        flipped[index] = limit.next_lower() // limit.width_per_unit
        dearest = max(dearest, now - cost(flipped))
    return present if dearest == 0 or now - dearest < floor else chain.within(floor, cost)


def _cost_model(graph: Graph, request: Selection) -> CostModel:
    if request.target == "macs":
        return CostModel.of_macs(graph)
    return CostModel.of_params(graph, request.parameters)


def _unfrozen_width(limits: Sequence[Limits]) -> Callable[[IntVector], float]:
    widths = np.array([0 if limit.frozen else limit.width_per_unit for limit in limits], dtype=np.int64)
    return lambda units: float(units @ widths)


def _units(limits: Sequence[Limits], widths: Sequence[int]) -> IntVector:
    return np.array([w // limit.width_per_unit for limit, w in zip(limits, widths, strict=True)], dtype=np.int64)


def _initial_units(limits: Sequence[Limits]) -> IntVector:
    return _units(limits, [limit.initial for limit in limits])


def _check_choice(argument: str, value: str, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise ValueError(f"`{argument}` must be one of {', '.join(map(repr, choices))}, got {value!r}")
