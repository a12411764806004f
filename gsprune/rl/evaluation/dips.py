"""Dips of the training return after pruning events, and the recovery from them.

The return is noisy, so after *any* moment some window has a lower mean than the window before it. So depths are
compared with those at control points: moments of the same run with no pruning near them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from gsprune.arrays import AnyArray, Float64Array, IntArray

__all__ = ["Dip", "DipSummary", "ReturnSeries", "find_dips", "summarise_dips"]


@dataclass(frozen=True)
class ReturnSeries:
    """The training return as it was logged.

    Attributes:
        steps: (T,) int64 environment steps, strictly ascending.
        returns: (T,) float64 mean return of the episodes that ended since the row before; NaN if none ended.
        episodes: (T,) float64 number of those episodes.
    """

    steps: IntArray
    returns: Float64Array
    episodes: Float64Array

    def __post_init__(self) -> None:
        if not self.steps.shape == self.returns.shape == self.episodes.shape or self.steps.ndim != 1:
            shapes = (self.steps.shape, self.returns.shape, self.episodes.shape)
            raise ValueError(f"`steps`, `returns` and `episodes` must be vectors of one length, got {shapes}")
        if np.any(np.diff(self.steps) <= 0):
            raise ValueError("`steps` must ascend strictly; sort the rows and drop repeated ones")

    def window_means(self, ends: AnyArray, window: int) -> Float64Array:
        """Mean return per episode over (end - window, end] for each of the (E,) ends; NaN where no episode ended."""
        weights = np.where(np.isfinite(self.returns), self.episodes, 0.0)
        total = np.concatenate([[0.0], np.cumsum(weights * np.nan_to_num(self.returns))])
        count = np.concatenate([[0.0], np.cumsum(weights)])
        high = np.searchsorted(self.steps, ends, side="right")
        low = np.searchsorted(self.steps, np.asarray(ends) - window, side="right")
        episodes = count[high] - count[low]
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.where(episodes > 0, (total[high] - total[low]) / episodes, np.nan)


@dataclass(frozen=True)
class Dip:
    """The return around one pruning event, or around a burst of events that follow one another within the window.

    Attributes:
        start: environment steps at the first event.
        end: environment steps at the last event.
        before: mean return over the window that ends at `start`.
        lowest: lowest mean over a window that begins at `start` or later and ends at `end` + horizon or earlier.
        recovery: environment steps from `start` to the end of the first window after the lowest one whose mean reaches
            `before`; 0 if no mean is below `before`, None if no later mean reaches it.
    """

    start: int
    end: int
    before: float
    lowest: float
    recovery: int | None

    @property
    def depth(self) -> float:
        """The fall of the return, in reward units; negative if it only rose."""
        return self.before - self.lowest


@dataclass(frozen=True)
class DipSummary:
    """All dips of a run beside the control points.

    Attributes:
        dips: one per event or burst.
        depth: mean depth over the dips, reward units.
        control_depth: mean depth at control points; NaN if the run has none.
        recovered: share of dips that recovered.
        recovery: median recovery of those, in environment steps; NaN if none recovered.
    """

    dips: tuple[Dip, ...]
    depth: float
    control_depth: float
    recovered: float
    recovery: float


def find_dips(series: ReturnSeries, events: Sequence[int], window: int, horizon: int) -> tuple[Dip, ...]:
    """The dip after each pruning event.

    Events closer than `window` are one burst (a schedule with a step per iteration is a single one), since their dips
    cannot be told apart. An event without an episode before or after it is left out.

    Args:
        series: the training return.
        events: environment steps of the pruning events, in any order.
        window: width of the averaging windows, environment steps, at least 1. Make it several episodes long, because
            episodes that run at the event end within the first window.
        horizon: end of the last window after the last event, environment steps, at least `window`.

    Returns:
        The dips in the order of time.

    Raises:
        ValueError: `window` < 1 or `horizon` < `window`.
    """
    _check(window, horizon)
    found = [_dip(series, start, end, window, horizon) for start, end in _bursts(events, window)]
    return tuple(dip for dip in found if dip is not None)


def summarise_dips(series: ReturnSeries, events: Sequence[int], window: int, horizon: int) -> DipSummary:
    """The dips of a run, their mean depth and recovery, and the mean depth at control points.

    Control points are `window` apart and have no event in (point - window, point + horizon]. The arguments and errors
    are those of `find_dips`.
    """
    dips = find_dips(series, events, window, horizon)
    depths = [dip.depth for dip in dips]
    control = [dip.depth for dip in _controls(series, events, window, horizon)]
    recoveries = [dip.recovery for dip in dips if dip.recovery is not None]
    return DipSummary(
        dips=dips,
        depth=_mean(depths),
        control_depth=_mean(control),
        recovered=len(recoveries) / len(dips) if dips else float("nan"),
        recovery=float(np.median(recoveries)) if recoveries else float("nan"),
    )


def _dip(series: ReturnSeries, start: int, end: int, window: int, horizon: int) -> Dip | None:
    before = float(series.window_means(np.array([start]), window)[0])
    ends = series.steps[(series.steps >= start + window) & (series.steps <= end + horizon)]
    means = series.window_means(ends, window)
    ends, means = ends[np.isfinite(means)], means[np.isfinite(means)]
    if not np.isfinite(before) or means.size == 0:
        return None
    lowest = int(np.argmin(means))
    recovery: int | None = 0
    if means[lowest] < before:
        back = np.flatnonzero(means[lowest:] >= before)
        recovery = int(ends[lowest + back[0]]) - start if back.size else None
    return Dip(start, end, before, float(means[lowest]), recovery)


def _controls(series: ReturnSeries, events: Sequence[int], window: int, horizon: int) -> list[Dip]:
    if series.steps.size == 0:
        return []
    occupied = np.asarray(events, dtype=np.int64)
    points = range(int(series.steps[0]) + window, int(series.steps[-1]) - horizon + 1, window)
    quiet = (p for p in points if not np.any((occupied > p - window) & (occupied <= p + horizon)))
    dips = (_dip(series, point, point, window, horizon) for point in quiet)
    return [dip for dip in dips if dip is not None]


def _bursts(events: Sequence[int], window: int) -> list[tuple[int, int]]:
    """(first, last) of each sequence of events that are less than `window` steps apart."""
    bursts: list[tuple[int, int]] = []
    for event in sorted(events):
        if bursts and event - bursts[-1][1] < window:
            bursts[-1] = (bursts[-1][0], event)
        else:
            bursts.append((event, event))
    return bursts


def _mean(values: Sequence[float]) -> float:
    return float(np.mean(values)) if values else float("nan")


def _check(window: int, horizon: int) -> None:
    if window < 1:
        raise ValueError(f"`window` must be at least 1 environment step, got {window}")
    if horizon < window:
        raise ValueError(f"`horizon` must be at least `window` ({window}), got {horizon}")
