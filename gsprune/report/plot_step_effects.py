"""The plot of pruning steps: the return, and how much each step changed the policy and the values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from gsprune.report.record import RunRecord
from gsprune.report.series import mean_band
from gsprune.report.style import PlotStyle, draw_band, format_steps, method_legend, new_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["step_effects"]

# (metric, label, True for a logarithmic axis)
_EFFECTS = (
    ("pruning/kl", "KL of a step", True),
    ("pruning/action_change", "greedy actions changed", False),
    ("pruning/value_error", "value change / std", True),
)
_MAX_COLUMNS = 4
# More dotted lines than this would fill the panel.
_MAX_LINES = 30


def step_effects(runs: Sequence[RunRecord], styles: Mapping[str, PlotStyle]) -> Figure | None:
    """Plot the return over training, and below it a point for every pruning step.

    The panels of one game are stacked. Dotted lines mark the steps, unless there are too many of them. A game is
    omitted if no run has a measured step. See `gsprune.report.plots`.
    """
    effects = [effect for effect in _EFFECTS if any(run.last(effect[0]) is not None for run in runs)]
    measured = [run for run in runs if any(run.last(key) is not None for key, _, _ in effects)]
    games = sorted({run.game for run in measured})
    if not games:
        return None
    num_columns, num_panels = min(len(games), _MAX_COLUMNS), 1 + len(effects)
    figure, axes = new_figure(num_columns, num_panels * -(-len(games) // num_columns), height=2.4)
    columns = axes.reshape(-1, num_panels, num_columns).transpose(0, 2, 1).reshape(-1, num_panels)
    for axis in columns[len(games) :].flat:
        axis.remove()
    for column, game in zip(columns, games, strict=False):
        game_runs = [run for run in runs if run.game == game]
        _draw_returns(column[0], game_runs, styles)
        column[0].set_title(game)
        for axis, (key, label, logarithmic) in zip(column[1:], effects, strict=True):
            _draw_steps(axis, game_runs, styles, key)
            axis.set_ylabel(label)
            if logarithmic:
                axis.set_yscale("log")
        steps = sorted({step for run in game_runs for step in _steps(run, [key for key, _, _ in effects])})
        for axis in column:
            for step in steps if len(steps) <= _MAX_LINES else ():
                axis.axvline(step, color="0.6", linestyle=":", linewidth=0.7, zorder=0)
            axis.set_xlim(0, max(run.column("step")[-1] for run in game_runs if run.rows))
            axis.xaxis.set_major_formatter(format_steps)
        column[-1].set_xlabel("environment steps")
    shown = {run.method for run in runs if run.game in games}
    method_legend(figure, [method for method in styles if method in shown], styles)
    return figure


def _draw_returns(axis: Axes, runs: Sequence[RunRecord], styles: Mapping[str, PlotStyle]) -> None:
    for method, style in styles.items():
        curves = [run.curve("charts/episodic_return") for run in runs if run.method == method]
        band = mean_band(curves)
        if band is not None:
            draw_band(axis, band, style)
    axis.set_ylabel("return, last 100 episodes")


def _draw_steps(axis: Axes, runs: Sequence[RunRecord], styles: Mapping[str, PlotStyle], key: str) -> None:
    """A point per step of every run."""
    for method, style in styles.items():
        for run in runs:
            if run.method == method:
                curve = run.curve(key).finite()
                axis.plot(curve.x, curve.y, style.marker, color=style.colour, markersize=4, alpha=0.8)


def _steps(run: RunRecord, keys: Sequence[str]) -> list[int]:
    """Environment steps of the rows with a measured step."""
    return [row["step"] for row in run.rows if any(row.get(key) is not None for key in keys)]
