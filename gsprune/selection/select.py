"""Choosing the units to keep: local, global and isomorphic scope, for channels, parameters or MACs.

`sparsity` is the removed fraction of the first-seen network, and never more than that is removed. So a repeated or a
smaller request changes nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from gsprune.arrays import BoolArray, Float32Array, IntArray
from gsprune.backends import Backend
from gsprune.selection.chain import Chain, cost_floor, merged_chain, ratio_chain
from gsprune.selection.cost import CostModel
from gsprune.selection.options import Selection, per_group
from gsprune.selection.widths import WidthLimits
from gsprune.tracing.graph import Graph
from gsprune.tracing.structure import Structure

__all__ = ["select_units"]


def select_units(
    structure: Structure,
    scores: Float32Array,
    initial_widths: Mapping[str, int],
    request: Selection,
    *,
    backend: Backend,
    frozen: frozenset[str] = frozenset(),
) -> BoolArray:
    """Choose the units to keep for a sparsity: (units,) bool over all groups of the structure.

    Higher `scores`, (units,), mean keep. `initial_widths` are first-seen widths; a missing one is the present width.
    Groups in `frozen` keep their width and need no scores; they count in "params" and "macs", not in "channels".

    Raises:
        ValueError: a glob that matches nothing, or a mapping with another scope or target.
    """
    limits = WidthLimits.of(structure, initial_widths, request, frozen)
    sparsities = per_group("sparsity", request.sparsity, structure.traced, 0.0)
    if request.scope == "local" and request.target == "channels":
        kept = limits.units(limits.kept(np.array(sparsities)))
    else:
        kept = _kept_units(structure, scores, limits, request)
    return backend.select_groups(scores, structure.first_unit, kept)


def _kept_units(structure: Structure, scores: Float32Array, limits: WidthLimits, request: Selection) -> IntArray:
    """(groups,) int64, kept units of every group, for requests other than local scope with target "channels"."""
    scope, target, sparsity = request.scope, request.target, request.sparsity
    if isinstance(sparsity, Mapping):
        raise ValueError(
            f"`sparsity` can be a mapping only with scope='local' and target='channels', got scope={scope!r} and "
            f"target={target!r}; give one number"
        )
    if scope == "local":
        cost = _cost_model(structure.graph, request)
        return ratio_chain(limits).within(cost_floor(cost(limits.units(limits.initial)), sparsity), cost)
    pools = [group.kind if scope == "isomorphic" else "all" for group in structure.traced.groups]
    if target != "channels":
        return _solve_scored(merged_chain(limits, scores, pools), sparsity, _cost_model(structure.graph, request))
    present = limits.units(limits.present)
    units = present
    for pool in dict.fromkeys(pools):
        inside = np.array([name == pool for name in pools], dtype=bool)
        # Groups of other pools are frozen here, so the differences of all solutions add up.
        limits_inside = limits._replace(frozen=limits.frozen | ~inside)
        chain = merged_chain(limits_inside, scores, pools)
        units = units + _solve_scored(chain, sparsity, _unfrozen_width(limits_inside)) - present
    return units


def _solve_scored(chain: Chain, sparsity: float, cost: Callable[[IntArray], float]) -> IntArray:
    """Units after the longest prefix of a chain of scored flips that the sparsity allows.

    Scores change after every step. If a small rest of the budget could pay for whichever flip the new scores put first,
    repeating a request would remove more each time. So nothing is removed unless the budget covers the most expensive
    flip.
    """
    limits = chain.limits
    present, lower = limits.units(limits.present), limits.units(limits.next_lower())
    floor = cost_floor(cost(limits.units(limits.initial)), sparsity)
    now = cost(present)
    largest = 0.0
    for index in range(len(present)):
        flipped = present.copy()
        flipped[index] = lower[index]
        largest = max(largest, now - cost(flipped))
    return present if largest == 0 or now - largest < floor else chain.within(floor, cost)


def _cost_model(graph: Graph, request: Selection) -> CostModel:
    if request.target == "macs":
        return CostModel.of_macs(graph)
    return CostModel.of_params(graph, request.parameters)


def _unfrozen_width(limits: WidthLimits) -> Callable[[IntArray], float]:
    widths = np.where(limits.frozen, 0, limits.width_per_unit)
    return lambda units: float(units @ widths)
