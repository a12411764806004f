"""Curves of several runs brought onto common steps, and their mean with a band."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

__all__ = ["Band", "Curve", "mean_band", "resampling"]

FloatArray = npt.NDArray[np.float64]

_RESAMPLES = 1_000  # a band needs no finer percentiles than a line is wide


@dataclass(frozen=True)
class Curve:
    """One run's values over steps (or seconds).

    Attributes:
        x: (T,) float64, ascending.
        y: (T,) float64; NaN where there is no value yet.
    """

    x: FloatArray
    y: FloatArray

    def finite(self) -> Curve:
        """The points that have a value."""
        known = np.isfinite(self.y) & np.isfinite(self.x)
        return Curve(self.x[known], self.y[known])

    def at(self, x: FloatArray) -> FloatArray:
        """(G,) values at x, on the straight line between neighbouring points, as the curve would be drawn."""
        points = self.finite()
        return np.interp(x, points.x, points.y, left=np.nan, right=np.nan)


@dataclass(frozen=True)
class Band:
    """The mean of several curves with a pointwise interval.

    Attributes:
        x: (G,) float64.
        mean: (G,) float64.
        low: (G,) float64; equal to `mean` where there is one curve.
        high: (G,) float64.
        runs: how many curves were averaged.
    """

    x: FloatArray
    mean: FloatArray
    low: FloatArray
    high: FloatArray
    runs: int


def resampling() -> np.random.Generator:
    """A generator for a bootstrap; always the same, so that a report can be repeated."""
    return np.random.default_rng(0)


def mean_band(curves: Sequence[Curve], points: int = 200) -> Band | None:
    """The mean over curves, and a 95 % bootstrap interval over them, on the stretch that all of them cover.

    Where curves end at different x, the mean over those that are left would jump; so it ends with the shortest.

    Args:
        curves: one per run; those without a finite point are left out.
        points: where the runs have no more points than this in all, these are shown, else an even grid of so many.

    Returns:
        The band, or None if there is nothing to show.
    """
    usable = [curve.finite() for curve in curves]
    usable = [curve for curve in usable if curve.x.size]
    if not usable:
        return None
    low, high = max(curve.x[0] for curve in usable), min(curve.x[-1] for curve in usable)
    if high < low:
        return None
    own = np.unique(np.concatenate([curve.x for curve in usable]))
    own = own[(own >= low) & (own <= high)]
    grid = own if own.size <= points else np.linspace(low, high, points)
    values = np.stack([curve.at(grid) for curve in usable])
    mean = values.mean(axis=0)
    if len(usable) == 1:
        return Band(grid, mean, mean, mean, 1)
    picks = resampling().integers(len(usable), size=(_RESAMPLES, len(usable)))
    bounds = np.quantile(values[picks].mean(axis=1), [0.025, 0.975], axis=0)
    return Band(grid, mean, bounds[0], bounds[1], len(usable))
