"""The speed of learning: the mean return over the training, and the steps until a return is reached."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from gsprune.report.cells import return_cell
from gsprune.report.record import RunRecord, by_game_and_method
from gsprune.report.style import format_steps
from gsprune.report.table import UNKNOWN, Table, percent

__all__ = ["learning_table", "mean_return", "steps_until"]

_RETURN = "charts/episodic_return"
_SHARE = 0.9  # of the way from the baseline's first return to its last


def mean_return(run: RunRecord) -> float | None:
    """The area under a run's training return, divided by its number of steps; None with fewer than two points."""
    curve = run.curve(_RETURN).finite()
    if len(curve.x) < 2:
        return None
    areas = np.diff(curve.x) * (curve.y[1:] + curve.y[:-1]) / 2
    return float(areas.sum() / (curve.x[-1] - curve.x[0]))


def steps_until(run: RunRecord, level: float) -> int | None:
    """Steps until the mean return of 100 training episodes reaches a level; None if it never does."""
    curve = run.curve(_RETURN).finite()
    reached = np.flatnonzero(curve.y >= level)
    return int(curve.x[reached[0]]) if len(reached) else None


def learning_table(runs: Sequence[RunRecord], methods: Sequence[str], baseline: str) -> Table | None:
    """The speed of learning of each method, with one row per game and method; see `gsprune.report.tables`.

    The final return of the method `baseline` determines the level to reach. A game in which it has no return is
    omitted.
    """
    rows = []
    for game, method, own_runs in by_game_and_method(runs, methods):
        level = _level([run for run in runs if (run.game, run.method) == (game, baseline)])
        if level is None:
            continue
        steps = [count for run in own_runs if (count := steps_until(run, level)) is not None]
        rows.append(
            (
                method,
                game,
                str(len(own_runs)),
                return_cell([mean_return(run) for run in own_runs]),
                f"{level:.2f}",
                f"{len(steps)}/{len(own_runs)}",
                format_steps(float(np.mean(steps))) if steps else UNKNOWN,
            )
        )
    if not rows:
        return None
    headings = ("method", "game", "runs", "mean return", "level", "reached by", "steps until then")
    note = (
        "Mean return: the area under the return of the last 100 training episodes, divided by the steps. Level: "
        f"{percent(_SHARE)} of the way from the first return of {baseline} to its last. Steps until then: mean over "
        "the runs that reach the level."
    )
    return Table("Learning", headings, tuple(rows), note)


def _level(baseline: Sequence[RunRecord]) -> float | None:
    curves = [run.curve(_RETURN).finite() for run in baseline]
    returns = [curve.y for curve in curves if len(curve.y)]
    if not returns:
        return None
    first, last = np.mean([values[0] for values in returns]), np.mean([values[-1] for values in returns])
    return float(first + _SHARE * (last - first))
