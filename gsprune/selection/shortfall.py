"""The reasons why a network is not as sparse as requested."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from gsprune.checks import listed
from gsprune.selection.options import Selection, per_group
from gsprune.selection.widths import WidthLimits
from gsprune.tracing.structure import Structure

__all__ = ["Shortfall", "shortfall"]

# Fractions of sums of whole numbers: a smaller difference is a rounding error.
_TOLERANCE = 1e-9


@dataclass(frozen=True, slots=True)
class Shortfall:
    """A request that was not reached.

    Attributes:
        causes: cause -> names of the groups that are wider than requested.
        final: True if no group can get narrower, so a higher sparsity changes nothing.
    """

    causes: Mapping[str, tuple[str, ...]]
    final: bool

    def __str__(self) -> str:
        parts = [f"{cause} ({listed(names)})" for cause, names in self.causes.items()]
        return f"the requested sparsity cannot be reached: limited by {', '.join(parts)}"


def shortfall(
    structure: Structure,
    initial_widths: Mapping[str, int],
    request: Selection,
    frozen: Mapping[str, str],
    reached: Callable[[], float],
) -> Shortfall | None:
    """The groups that are wider than requested, with causes; None if the request is met as far as whole widths allow.

    `structure` is that after the step. `frozen` maps groups that keep their width to the cause. `reached` returns the
    sparsity of the network, in the unit of the target.
    """
    limits = WidthLimits.of(structure, initial_widths, request, frozen)
    names = [group.name for group in structure.traced.groups]
    too_wide = np.full(len(names), True)
    is_local = request.scope == "local" and request.target == "channels"
    if is_local:
        requested = per_group("sparsity", request.sparsity, structure.traced, 0.0)
        ones, never = np.ones_like(limits.initial), np.zeros_like(limits.frozen)
        unbound = limits._replace(multiple=limits.width_per_unit, min_channels=ones, frozen=never)
        too_wide = unbound.kept(np.array(requested)) < limits.present
        if not too_wide.any():  # the usual case, without the cost of the causes
            return None
    causes = _causes(limits, [frozen.get(name) for name in names])
    final = all(cause is not None for cause in causes)
    if not is_local:
        assert not isinstance(request.sparsity, Mapping)
        if not (final and request.sparsity > reached() + _TOLERANCE):
            return None
    groups_of: dict[str, list[str]] = {}
    for name, cause, is_wide in zip(names, causes, too_wide.tolist(), strict=True):
        if is_wide:
            groups_of.setdefault(cause or "round_to", []).append(name)
    return Shortfall({cause: tuple(found) for cause, found in groups_of.items()}, final) if groups_of else None


def _causes(limits: WidthLimits, frozen: list[str | None]) -> list[str | None]:
    """For every group the reason why it cannot get narrower; None if it can."""
    no_floor = limits._replace(min_channels=np.ones_like(limits.min_channels))
    no_multiple = limits._replace(multiple=limits.width_per_unit)
    movable = [(each.next_lower() < limits.present).tolist() for each in (limits, no_floor, no_multiple)]
    reasons = (None, "min_channels", "round_to", "their last unit")
    return [
        cause if cause is not None else reasons[can_move.index(True) if any(can_move) else -1]
        for cause, *can_move in zip(frozen, *movable, strict=True)
    ]
