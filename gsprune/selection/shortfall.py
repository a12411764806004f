"""What keeps a network from the sparsity that was asked for."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from gsprune.selection.options import per_group_sparsity
from gsprune.selection.select import Selection, limits_of
from gsprune.selection.widths import Limits
from gsprune.tracing.structure import Structure

__all__ = ["Shortfall", "shortfall"]

# Fractions of sums of whole numbers: a smaller difference is a rounding error.
_TOLERANCE = 1e-9


@dataclass(frozen=True, slots=True)
class Shortfall:
    """A request that was not reached.

    Attributes:
        causes: what holds groups that would have to be narrower -> their names.
        final: whether no group can lose anything, so that asking for more is in vain.
    """

    causes: Mapping[str, tuple[str, ...]]
    final: bool

    def __str__(self) -> str:
        parts = [f"{cause} ({_listed(names)})" for cause, names in self.causes.items()]
        return f"more was asked for than could go: held by {', '.join(parts)}"


def shortfall(
    structure: Structure,
    initial_widths: Mapping[str, int],
    request: Selection,
    frozen: Mapping[str, str],
    reached: Callable[[], float],
) -> Shortfall | None:
    """Which groups are wider than asked for, and why; None where the request is met as nearly as widths allow.

    Args:
        structure: the network after the step.
        initial_widths: group name -> first-seen width.
        request: what was asked for.
        frozen: names of groups whose width was to stay -> what holds them.
        reached: gives the sparsity that the network has, in the unit of the target.
    """
    limits = limits_of(structure, initial_widths, request, frozen)
    names = [group.name for group in structure.traced.groups]
    held = {name: _cause(limit, frozen.get(name)) for name, limit in zip(names, limits, strict=True)}
    final = all(cause is not None for cause in held.values())
    if request.scope == "local" and request.target == "channels":
        asked = per_group_sparsity(request.sparsity, structure.traced)
        wide = [
            name for name, limit in zip(names, limits, strict=True) if _unbound(limit).kept(asked[name]) < limit.present
        ]
    else:
        assert not isinstance(request.sparsity, Mapping)
        wide = names if final and request.sparsity > reached() + _TOLERANCE else []
    causes: dict[str, list[str]] = {}
    for name in wide:
        causes.setdefault(held[name] or "round_to", []).append(name)
    return Shortfall({cause: tuple(found) for cause, found in causes.items()}, final) if causes else None


def _cause(limit: Limits, frozen: str | None) -> str | None:
    """What keeps a group from losing anything; None where it can."""
    if frozen is not None or limit.next_lower() < limit.present:
        return frozen
    if limit._replace(min_channels=1).next_lower() < limit.present:
        return "min_channels"
    return "round_to" if limit._replace(round_to=1).next_lower() < limit.present else "their last unit"


def _unbound(limit: Limits) -> Limits:
    return limit._replace(round_to=1, min_channels=1, frozen=False)


def _listed(names: tuple[str, ...]) -> str:
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
