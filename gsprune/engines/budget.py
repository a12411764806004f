"""A budget of time: what `target="latency"` prunes to."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from numbers import Integral, Real
from typing import get_args

from gsprune.engines.engine import EngineName

__all__ = ["LatencyBudget"]


@dataclass(frozen=True)
class LatencyBudget:
    """So many milliseconds for one forward, on this machine.

    In a schedule it is the `final` value: widths then fall along the schedule until the network meets the budget.

    Attributes:
        milliseconds: median time of one forward, > 0.
        engine: "eager", "compiled" or "onnxruntime".
        threads: of the engine on the CPU, >= 1.
        batch: examples per forward, >= 1; None takes the batch of the example inputs.
        reached: how far on the way to the budget, in [0, 1]: the fraction of the final sparsity. Schedules set it.

    Raises:
        TypeError: something is not a number.
        ValueError: a number out of its range, or an unknown engine.
    """

    milliseconds: float
    engine: EngineName = "eager"
    threads: int = 1
    batch: int | None = 1
    reached: float = 1.0

    def __post_init__(self) -> None:
        for name, value in (("milliseconds", self.milliseconds), ("reached", self.reached)):
            if isinstance(value, bool) or not isinstance(value, Real):
                raise TypeError(f"`{name}` must be a number, got {value!r}")
        if not 0 < self.milliseconds < math.inf:
            raise ValueError(f"`milliseconds` must be above 0 and finite, got {self.milliseconds!r}")
        if not 0 <= self.reached <= 1:
            raise ValueError(f"`reached` must be in [0, 1], the way that is done, got {self.reached!r}")
        if not isinstance(self.engine, str) or self.engine not in get_args(EngineName):
            known = ", ".join(map(repr, get_args(EngineName)))
            raise ValueError(f"`engine` must be one of {known}, got {self.engine!r}")
        for name, count in (("threads", self.threads), ("batch", self.batch)):
            if count is None and name == "batch":
                continue
            if isinstance(count, bool) or not isinstance(count, Integral):
                raise TypeError(f"`{name}` must be a whole number, got {count!r}")
            if count < 1:
                raise ValueError(f"`{name}` must be at least 1, got {count}")

    def at(self, reached: float) -> LatencyBudget:
        """The same budget at another point of the way to it."""
        return replace(self, reached=reached)

    def __str__(self) -> str:
        threads = f"{self.threads} thread{'s' if self.threads > 1 else ''}"
        return f"{self.milliseconds:g} ms in {self.engine} ({threads}, batch {self.batch or 'of the example'})"
