"""Curves of several runs at common steps, and their mean with a band."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from gsprune.arrays import Float64Array

__all__ = ["Band", "Curve", "bootstrap_generator", "mean_band"]


_RESAMPLES = 1_000  # percentiles that are exact to the width of a line


@dataclass(frozen=True)
class Curve:
    """One run's values over steps (or seconds).

    Attributes:
        x: (T,) float64, ascending.
        y: (T,) float64; NaN for a missing value.
    """

    x: Float64Array
    y: Float64Array

    def finite(self) -> Curve:
        """The points with a value."""
        is_finite = np.isfinite(self.y) & np.isfinite(self.x)
        return Curve(self.x[is_finite], self.y[is_finite])

    def at(self, x: Float64Array) -> Float64Array:
        """(G,) values at x, interpolated linearly; NaN outside of the curve."""
        points = self.finite()
        return np.interp(x, points.x, points.y, left=np.nan, right=np.nan)


@dataclass(frozen=True)
class Band:
    """The mean of several curves with a pointwise interval.

    Attributes:
        x: (G,) float64.
        mean: (G,) float64.
        low: (G,) float64; equal to `mean` for a single curve.
        high: (G,) float64.
        runs: number of averaged curves.
    """

    x: Float64Array
    mean: Float64Array
    low: Float64Array
    high: Float64Array
    runs: int


def bootstrap_generator() -> np.random.Generator:
    """Make the generator of a bootstrap. It is always the same, so that a report can be repeated."""
    return np.random.default_rng(0)


def mean_band(curves: Sequence[Curve], points: int = 200) -> Band | None:
    """The mean of curves with a 95 % bootstrap interval, on the x range that all curves cover.

    The band ends with the shortest curve, because the mean over the remaining curves would jump there.

    Args:
        curves: one per run; curves without a finite point are omitted.
        points: the most points of the band. If the runs have more points in total, a regular grid is used.

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
    picks = bootstrap_generator().integers(len(usable), size=(_RESAMPLES, len(usable)))
    bounds = np.quantile(values[picks].mean(axis=1), [0.025, 0.975], axis=0)
    return Band(grid, mean, bounds[0], bounds[1], len(usable))
