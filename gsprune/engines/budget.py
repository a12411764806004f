"""The latency budget of `target="latency"`."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from gsprune.checks import check_number, check_whole
from gsprune.engines.registry import get_engine

__all__ = ["LatencyBudget"]


@dataclass(frozen=True)
class LatencyBudget:
    """The most milliseconds that one forward may take on this machine.

    A budget can be the `final` value of a schedule: widths then shrink until the network meets it.

    Attributes:
        milliseconds: median time of one forward, > 0.
        engine: "eager", "compiled", "onnxruntime", "onnxruntime-int8" or a registered engine.
        threads: CPU threads of the engine, >= 1.
        batch: examples per forward, >= 1; None takes the batch of the example inputs.
        reached: progress of the schedule, as a fraction of the final sparsity in [0, 1]. Schedules set it.

    Raises:
        TypeError: a value is not a number.
        ValueError: a number is out of its range, or the engine is unknown.
    """

    milliseconds: float
    engine: str = "eager"
    threads: int = 1
    batch: int | None = 1
    reached: float = 1.0

    def __post_init__(self) -> None:
        check_number("milliseconds", self.milliseconds, above=0, below=math.inf)
        check_number("reached", self.reached, at_least=0, at_most=1, meaning="the fraction of the way to the budget")
        get_engine(self.engine)
        check_whole("threads", self.threads, at_least=1)
        if self.batch is not None:
            check_whole("batch", self.batch, at_least=1)

    def at(self, reached: float) -> LatencyBudget:
        """The same budget for another point of a schedule."""
        return replace(self, reached=reached)

    def __str__(self) -> str:
        threads = f"{self.threads} thread{'s' if self.threads > 1 else ''}"
        return f"{self.milliseconds:g} ms in {self.engine} ({threads}, batch {self.batch or 'of the example'})"
