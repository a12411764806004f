"""Sparsity schedules: the sparsity of a network as a function of training progress.

A schedule is a frozen object that maps progress in [0, 1] to a sparsity: 0 up to `begin`, `final` from `end` on, and
never decreasing in between. By default the sparsity rises at every call. With `events` it rises only that many times:
the k-th of n events comes at ``begin + (end - begin) * k / n``.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field

from gsprune.checks import check_number, check_whole
from gsprune.engines.budget import LatencyBudget

__all__ = ["Cosine", "Cubic", "Exponential", "Linear", "OneShot", "Polynomial", "Schedule"]

# Progress is often step / steps, whose rounding error must not delay an event.
_EVENT_TOLERANCE = 1e-9


@dataclass(frozen=True)
class Schedule(ABC):
    """Base class of all schedules.

    Attributes:
        final: the sparsity reached at `end`, in [0, 1); or {glob of group or layer names: sparsity}; or, for
            target="latency", a `LatencyBudget`.
        begin: progress up to which nothing is pruned, in [0, 1].
        end: progress from which on the sparsity is `final`, in [begin, 1].
        events: number of times that the sparsity rises, >= 1; None: at every call.

    Raises:
        TypeError: a value is not a number.
        ValueError: a number is out of its range, or begin > end.
    """

    final: float | Mapping[str, float] | LatencyBudget
    begin: float = 0.2
    end: float = 0.8
    events: int | None = field(default=None, kw_only=True)

    def __post_init__(self) -> None:
        if not isinstance(self.final, LatencyBudget):
            for pattern, value in self.final.items() if isinstance(self.final, Mapping) else [(None, self.final)]:
                check_number("final" if pattern is None else f"final[{pattern!r}]", value, at_least=0, below=1)
        for name, value in (("begin", self.begin), ("end", self.end)):
            check_number(name, value, at_least=0, at_most=1, meaning="a fraction of training")
        if self.begin > self.end:
            raise ValueError(f"`begin` must not be after `end`, got begin={self.begin!r}, end={self.end!r}")
        if self.events is not None:
            check_whole("events", self.events, at_least=1)

    def __call__(self, progress: float) -> float | dict[str, float] | LatencyBudget:
        """The sparsity at a point of training.

        Args:
            progress: fraction of training that is done, in [0, 1].

        Returns:
            a number in [0, final]; for a mapping one number per glob; for a `LatencyBudget` the budget with `reached`
            set to the fraction of the way.

        Raises:
            ValueError: `progress` is outside [0, 1].
        """
        check_number("progress", progress, at_least=0, at_most=1, meaning="the fraction of training that is done")
        elapsed = self._elapsed(float(progress))
        if isinstance(self.final, LatencyBudget):
            return self.final.at(self._sparsity(1.0, elapsed))
        if isinstance(self.final, Mapping):
            return {pattern: self._sparsity(float(final), elapsed) for pattern, final in self.final.items()}
        return self._sparsity(float(self.final), elapsed)

    @abstractmethod
    def rise(self, elapsed: float, final: float) -> float:
        """The fraction of `final` to reach.

        Args:
            elapsed: fraction of the way from `begin` to `end`, in (0, 1).
            final: the sparsity to reach, in [0, 1).

        Returns:
            a number in [0, 1] that does not decrease with `elapsed`.
        """

    def _elapsed(self, progress: float) -> float:
        if progress >= self.end:
            return 1.0
        if progress <= self.begin:
            return 0.0
        elapsed = (progress - self.begin) / (self.end - self.begin)
        if self.events is None:
            return elapsed
        return math.floor(elapsed * self.events + _EVENT_TOLERANCE) / self.events

    def _sparsity(self, final: float, elapsed: float) -> float:
        if elapsed in {0.0, 1.0}:  # the ends are exact
            return final * elapsed
        return final * min(1.0, max(0.0, self.rise(elapsed, final)))


@dataclass(frozen=True)
class Polynomial(Schedule):
    """s(u) = final · (1 - (1 - u)^power): fast at first, then slower and slower (for power > 1).

    Source: Zhu & Gupta 2017, To prune, or not to prune, eq. 1 (power 3), https://arxiv.org/abs/1710.01878

    Attributes:
        power: > 0.
    """

    power: float = 3.0

    def __post_init__(self) -> None:
        super().__post_init__()
        check_number("power", self.power, above=0, below=math.inf)

    def rise(self, elapsed: float, final: float) -> float:
        """See `Schedule.rise`."""
        del final
        return 1.0 - math.pow(1.0 - elapsed, self.power)


@dataclass(frozen=True)
class Cubic(Schedule):
    """s(u) = final · (1 - (1 - u)³): `Polynomial` with power 3, the schedule of gradual pruning.

    Source: Zhu & Gupta 2017, To prune, or not to prune, eq. 1, https://arxiv.org/abs/1710.01878
    """

    def rise(self, elapsed: float, final: float) -> float:
        """See `Schedule.rise`."""
        del final
        return 1.0 - (1.0 - elapsed) ** 3


@dataclass(frozen=True)
class Linear(Schedule):
    """s(u) = final · u."""

    def rise(self, elapsed: float, final: float) -> float:
        """See `Schedule.rise`."""
        del final
        return elapsed


@dataclass(frozen=True)
class Cosine(Schedule):
    """s(u) = final · (1 - cos(π u)) / 2: slow at both ends."""

    def rise(self, elapsed: float, final: float) -> float:
        """See `Schedule.rise`."""
        del final
        return 0.5 * (1.0 - math.cos(math.pi * elapsed))


@dataclass(frozen=True)
class Exponential(Schedule):
    """s(u) = 1 - (1 - final)^u: equal intervals remove equal fractions of the remaining channels.

    Raises:
        ValueError: `final` is a `LatencyBudget`, whose sparsity is not known before it is measured.
    """

    def __post_init__(self) -> None:
        super().__post_init__()
        if isinstance(self.final, LatencyBudget):
            raise ValueError("`final` must be a sparsity for Exponential; the other schedules take a LatencyBudget")

    def rise(self, elapsed: float, final: float) -> float:
        """See `Schedule.rise`."""
        return (1.0 - (1.0 - final) ** elapsed) / final if final > 0 else elapsed


@dataclass(frozen=True)
class OneShot(Schedule):
    """A single step: 0 up to `begin`, `final` after it. `end` is only the upper bound of `begin`."""

    end: float = 1.0

    def rise(self, elapsed: float, final: float) -> float:
        """See `Schedule.rise`."""
        del elapsed, final
        return 1.0
