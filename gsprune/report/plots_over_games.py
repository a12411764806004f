"""Plots over all games: normalised scores with their intervals, and performance profiles; see `plots`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from gsprune.report.series import Band, bootstrap_generator
from gsprune.report.style import PlotStyle, draw_band, name_rows, new_figure, rows_inches, text_inches, wrapped
from gsprune.rl.evaluation.statistics import bootstrap_interval, interquartile_mean, mean, performance_profile

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["performance_profiles", "score_intervals"]

MethodScores = Mapping[str, Mapping[str, Sequence[float]]]
"""``{method: {game: normalised scores of its runs}}``."""

_THRESHOLDS = 401


def score_intervals(scores: MethodScores, styles: Mapping[str, PlotStyle]) -> Figure | None:
    """Interquartile mean and mean of the normalised test scores, with 95 % stratified bootstrap intervals."""
    methods = [method for method in styles if scores.get(method)]
    if not methods:
        return None
    figure, (axes,) = new_figure(2, 1, width=3.3 + text_inches(methods) / 2, height=rows_inches(methods))
    for axis, (name, statistic) in zip(axes, (("IQM", interquartile_mean), ("mean", mean)), strict=True):
        for row, method in enumerate(methods):
            interval = bootstrap_interval(scores[method], statistic, rng=bootstrap_generator())
            style = styles[method]
            axis.plot([interval.low, interval.high], [row, row], color=style.colour, linewidth=7, alpha=0.4)
            axis.plot(interval.estimate, row, style.marker, color=style.colour, markersize=7)
        axis.set_xlabel(f"{name} of normalised test return")
        name_rows(axis, methods if axis is axes[0] else [""] * len(methods))
        axis.margins(x=0.12)
    return figure


def performance_profiles(scores: MethodScores, styles: Mapping[str, PlotStyle]) -> Figure | None:
    """For every threshold the share of runs whose normalised test return is above it, with a 95 % band.

    At least one method must have two runs: a profile of one run is a step.
    """
    methods = [method for method in styles if sum(map(len, scores.get(method, {}).values())) > 1]
    if not methods:
        return None
    values = np.concatenate([np.asarray(runs) for method in methods for runs in scores[method].values()])
    margin = 0.05 * max(float(np.ptp(values)), 0.1)
    thresholds = np.linspace(values.min() - margin, values.max() + margin, _THRESHOLDS)
    figure, ((axis,),) = new_figure(1, 1, width=4.6 + text_inches(methods), height=max(3.6, rows_inches(methods) / 2))
    for method in methods:
        profile = performance_profile(scores[method], thresholds, rng=bootstrap_generator())
        band = Band(thresholds, profile.share, profile.low, profile.high, sum(map(len, scores[method].values())))
        draw_band(axis, band, styles[method], label=wrapped(method))
    axis.set_xlabel("normalised test return $t$")
    axis.set_ylabel("share of runs above $t$")
    axis.set_ylim(-0.02, 1.02)
    axis.legend(frameon=False, fontsize=8, loc="upper left", bbox_to_anchor=(1.0, 1.0))
    return figure
