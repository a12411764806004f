"""The plots of a report, each a figure with labelled axes and a legend.

Runs without a plot's data are omitted. A function returns None if no run has them. `styles` has the plot style of each
method, in the order of the methods.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from gsprune.arrays import Float64Array
from gsprune.report.record import RunRecord, equal_widths
from gsprune.report.series import mean_band
from gsprune.report.style import (
    PlotStyle,
    draw_band,
    format_steps,
    method_legend,
    name_rows,
    new_figure,
    plot_styles,
    rows_inches,
    text_inches,
    wrapped,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["learning_curves", "return_against_latency", "wall_clock", "widths_over_time"]

_MAX_COLUMNS = 4
_TIME_UNITS = ((3_600.0, "h"), (60.0, "min"), (1.0, "s"))


def learning_curves(
    runs: Sequence[RunRecord], styles: Mapping[str, PlotStyle], key: str, label: str, over: str = "step"
) -> Figure | None:
    """A metric over training: one panel per game, one line per method, the mean over seeds with its band.

    The metric on the x axis, `over`, is "step" or "time/seconds".
    """
    bands = {
        (game, method): mean_band([run.curve(key, over) for run in runs if (run.game, run.method) == (game, method)])
        for game in _games(runs)
        for method in _methods(runs, styles)
    }
    shown = {place: band for place, band in bands.items() if band is not None}
    games = list(dict.fromkeys(game for game, _ in shown))
    if not games:
        return None
    figure, axes = _panels(len(games))
    unit, unit_name = _time_unit(max(band.x[-1] for band in shown.values())) if over != "step" else (1.0, "")
    for game, axis in zip(games, axes, strict=True):
        for method in _methods(runs, styles):
            band = bands[game, method]
            if band is None:
                continue
            draw_band(axis, band, styles[method], unit)
        axis.set_title(game)
        axis.set_xlabel("environment steps" if over == "step" else f"training time ({unit_name})")
        axis.set_ylabel(label)
        axis.set_xlim(left=0)
        if over == "step":
            axis.xaxis.set_major_formatter(format_steps)
    method_legend(figure, [method for method in _methods(runs, styles) if any(m == method for _, m in shown)], styles)
    return figure


def return_against_latency(runs: Sequence[RunRecord], styles: Mapping[str, PlotStyle]) -> Figure | None:
    """Test return against batch-1 latency: one panel per game, one point per method with the range over its seeds.

    The line connects the Pareto-optimal methods.
    """
    complete = [run for run in runs if run.test_return is not None and run.latency_ms is not None]
    games = _games(complete)
    if not games:
        return None
    figure, axes = _panels(len(games))
    for game, axis in zip(games, axes, strict=True):
        centres = []
        for method, style in styles.items():
            shown = [run for run in complete if (run.game, run.method) == (game, method)]
            if not shown:
                continue
            latencies = np.array([run.latency_ms for run in shown], dtype=np.float64)
            returns = np.array([run.test_return for run in shown], dtype=np.float64)
            x, y = latencies.mean(), returns.mean()
            axis.errorbar(
                x,
                y,
                xerr=_reach(latencies),
                yerr=_reach(returns),
                fmt=style.marker,
                color=style.colour,
                markersize=7,
                elinewidth=1,
                capsize=2,
            )
            centres.append((float(x), float(y)))
        front = _pareto_front(centres)
        axis.plot(*zip(*front, strict=True), color="0.6", linewidth=1, zorder=0)
        axis.set_title(game)
        axis.set_xlabel("latency of one frame (ms)")
        axis.set_ylabel("return of evaluations")
        axis.set_xlim(left=0)
        axis.margins(0.12)
    method_legend(figure, _methods(complete, styles), styles, lines=False)
    return figure


def widths_over_time(runs: Sequence[RunRecord]) -> Figure | None:
    """The width of every group over training: one panel per method that shrinks, with its run of the lowest seed.

    Groups with equal widths share a line.
    """
    shrunk: dict[str, RunRecord] = {}
    for run in sorted(runs, key=lambda run: run.seed):
        if any(widths[0] != widths[-1] for widths in run.widths().values()):
            shrunk.setdefault(run.method, run)
    shown = [shrunk[method] for method in dict.fromkeys(run.method for run in runs) if method in shrunk]
    if not shown:
        return None
    figure, axes = _panels(len(shown), max_columns=2, width=6.0, height=3.8)
    for run, axis in zip(shown, axes, strict=True):
        steps = run.column("step")
        for (names, widths), style in zip(equal_widths(run.widths()), _width_styles(), strict=False):
            label = names[0] if len(names) == 1 else f"{names[0]} and {len(names) - 1} more"
            axis.step(steps, widths, style.line, where="post", color=style.colour, linewidth=1.6, label=label)
        axis.set_title(wrapped(f"{run.method}: {run.game}, seed {run.seed}"), fontsize=10)
        axis.set_xlabel("environment steps")
        axis.set_ylabel("width (channels)")
        axis.set_xlim(left=0)
        axis.set_yscale("log", base=2)
        axis.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
        axis.xaxis.set_major_formatter(format_steps)
        axis.legend(fontsize=7, frameon=False, loc="upper left", bbox_to_anchor=(1.0, 1.0))
    return figure


def wall_clock(runs: Sequence[RunRecord], styles: Mapping[str, PlotStyle]) -> Figure | None:
    """Training time per method: a bar for the mean over seeds and games, a point for every run.

    Runs of different lengths are not comparable, so only the longest runs are shown.
    """
    timed = [run for run in runs if run.seconds is not None]
    if not timed:
        return None
    max_steps = max(run.steps or 0 for run in timed)
    full = [run for run in timed if run.steps == max_steps]
    methods = _methods(full, styles)
    unit, unit_name = _time_unit(max(run.seconds or 0.0 for run in full))
    figure, ((axis,),) = new_figure(1, 1, width=5.5 + text_inches(methods), height=rows_inches(methods))
    for row, method in enumerate(methods):
        times = np.array([run.seconds for run in full if run.method == method], dtype=np.float64) / unit
        axis.barh(row, times.mean(), height=0.6, color=styles[method].colour, alpha=0.75)
        if len(times) > 1:
            axis.plot(times, np.full(len(times), row), "o", color="black", markersize=3)
        axis.annotate(
            f"{times.mean():.3g}",
            (times.max(), row),
            xytext=(5, 0),
            textcoords="offset points",
            va="center",
            fontsize=8,
        )
    name_rows(axis, methods)
    axis.grid(False, axis="y")
    axis.margins(x=0.1)
    axis.set_xlabel(f"training time for {format_steps(max_steps)} steps ({unit_name}); points: single runs")
    return figure


def _panels(count: int, max_columns: int = _MAX_COLUMNS, width: float = 4.6, height: float = 3.2) -> tuple[Figure, Any]:
    """A figure with `count` panels, and a flat array of their axes."""
    columns = min(count, max_columns)
    rows = -(-count // columns)
    figure, axes = new_figure(columns, rows, width, height)
    flat = axes.ravel()
    for axis in flat[count:]:
        axis.remove()
    return figure, flat[:count]


def _width_styles() -> list[PlotStyle]:
    return list(plot_styles([str(i) for i in range(28)]).values())


def _reach(values: Float64Array) -> Float64Array:
    """(2, 1): distances of the smallest and the largest value from the mean, at least 0 in spite of rounding."""
    centre = values.mean()
    return np.maximum([[centre - values.min()], [values.max() - centre]], 0.0)


def _pareto_front(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """The points for which no other point has a smaller x and a larger y, by ascending x."""
    front: list[tuple[float, float]] = []
    for x, y in sorted(points, key=lambda point: (point[0], -point[1])):
        if not front or y > front[-1][1]:
            front.append((x, y))
    return front


def _time_unit(seconds: float) -> tuple[float, str]:
    return next((size, name) for size, name in _TIME_UNITS if seconds >= 2 * size or size == 1.0)


def _games(runs: Sequence[RunRecord]) -> list[str]:
    return sorted({run.game for run in runs})


def _methods(runs: Sequence[RunRecord], styles: Mapping[str, PlotStyle]) -> list[str]:
    present = {run.method for run in runs}
    return [method for method in styles if method in present]
