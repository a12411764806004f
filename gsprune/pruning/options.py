"""The options of one step, and their checks. `gsprune.prune_step` documents them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from torch import nn

from gsprune.backends import BackendName
from gsprune.compensation.compensation import Compensation
from gsprune.distributed.consensus import Consensus
from gsprune.engines import LatencyBudget
from gsprune.importance import Criterion, Importance
from gsprune.selection import Selection
from gsprune.tracing.example import Example

__all__ = ["ImportanceSpec", "StepOptions", "latency_budget"]

ImportanceSpec = str | Importance | Criterion | Callable[[Any], Any]


@dataclass(frozen=True, slots=True)
class StepOptions:
    """Options of one step. Sparsity, scope, target and limits are in `selection`."""

    selection: Selection
    importance: Importance
    ignore: Sequence[str | nn.Module | type]
    rescale: bool
    backend: BackendName
    dry_run: bool
    calibration: Sequence[Example] = ()
    consensus: Consensus | None = None
    compensation: Compensation | None = None


def latency_budget(sparsity: object, target: str, scope: str) -> LatencyBudget | None:
    """Convert `sparsity` to a latency budget if the target is "latency"; None for another target.

    Raises:
        TypeError: `sparsity` is neither a number nor a budget.
        ValueError: a budget has another target, or another scope than "local".
    """
    if not isinstance(target, str) or target != "latency":
        if isinstance(sparsity, LatencyBudget):
            raise ValueError(f"`sparsity` is a LatencyBudget, which needs target='latency'; got target={target!r}")
        return None
    if scope != "local":
        raise ValueError(
            f"`scope` must be 'local' with target='latency', which finds one ratio for all groups; got {scope!r}"
        )
    if isinstance(sparsity, LatencyBudget):
        return sparsity
    if isinstance(sparsity, bool) or not isinstance(sparsity, int | float):
        raise TypeError(f"`sparsity` must be milliseconds or a LatencyBudget with target='latency', got {sparsity!r}")
    return LatencyBudget(sparsity)
