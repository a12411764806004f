"""Writes a report: a Markdown file with tables and plots, and a CSV file with the results of every run."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from gsprune.checks import counted
from gsprune.report.dips import dip_table
from gsprune.report.learning import learning_table
from gsprune.report.plot_step_effects import step_effects
from gsprune.report.plots import learning_curves, return_against_latency, wall_clock, widths_over_time
from gsprune.report.plots_over_games import performance_profiles, score_intervals
from gsprune.report.record import RunRecord
from gsprune.report.style import plot_styles
from gsprune.report.table import Table
from gsprune.report.tables import (
    aggregate_table,
    effect_table,
    game_table,
    noise_table,
    normalised_scores,
    write_runs_csv,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["Report", "write_report"]


@dataclass(frozen=True)
class Report:
    """The files of a report.

    Attributes:
        folder: the folder.
        tables: the tables in the order of ``report.md``.
        pictures: file names of the plots in the order of ``report.md``.
    """

    folder: Path
    tables: tuple[Table, ...]
    pictures: tuple[str, ...]


def write_report(runs: Sequence[RunRecord], folder: Path, baseline: str | None = None) -> Report:
    """Write ``report.md``, ``runs.csv`` and the plots; an older report's files are overwritten or deleted.

    Args:
        runs: at least one run; runs may be unfinished.
        folder: the folder; created if missing.
        baseline: the method to compare the others with; None takes the first dense one, or else the first one.

    Returns:
        The files.

    Raises:
        ValueError: there is no run, the baseline is unknown, or the folder cannot be written.
    """
    methods = list(dict.fromkeys(run.method for run in runs))
    if not methods:
        raise ValueError("`runs` must hold at least one run")
    if baseline is not None and baseline not in methods:
        raise ValueError(f"`baseline` must be one of the methods {', '.join(methods)}; got {baseline!r}")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        tables = _tables(runs, methods, baseline or _dense_method(runs) or methods[0])
        pictures = _pictures(runs, methods, folder)
        write_runs_csv(runs, folder / "runs.csv")
        (folder / "report.md").write_text(_markdown(runs, tables, pictures), encoding="utf-8")
    except OSError as error:
        raise ValueError(
            f"the report cannot be written to {str(folder)!r}: {error.strerror}; choose another --out"
        ) from error
    return Report(folder, tuple(tables), tuple(name for name, _ in pictures))


def _dense_method(runs: Sequence[RunRecord]) -> str | None:
    dense = (run for run in runs if run.config.get("pruning", "none") == "none" and not run.config.get("widths_of"))
    return next((run.method for run in dense), None)


def _tables(runs: Sequence[RunRecord], methods: Sequence[str], baseline: str) -> list[Table]:
    games = sorted({run.game for run in runs})
    tables: list[Table | None] = [game_table(runs, game, methods) for game in games]
    tables += [learning_table(runs, methods, baseline), aggregate_table(runs, methods, baseline)]
    tables += [noise_table(runs, methods), effect_table(runs, methods), dip_table(runs, methods)]
    return [table for table in tables if table is not None]


def _pictures(runs: Sequence[RunRecord], methods: Sequence[str], folder: Path) -> list[tuple[str, str]]:
    """Draw all plots that have data; return (file name, caption) of each."""
    styles = plot_styles(methods)
    scores = {method: normalised_scores(runs, method) for method in methods}
    levels = " on the full distribution of levels" if any(run.train_return is not None for run in runs) else ""
    band = "Line: mean over runs; band: its 95 % bootstrap interval."
    candidates: list[tuple[str, str, Callable[[], Figure | None]]] = [
        (
            "curves_training.png",
            f"Return of the last 100 training episodes over environment steps. {band}",
            lambda: learning_curves(runs, styles, "charts/episodic_return", "return, last 100 episodes"),
        ),
        (
            "curves_time.png",
            f"Return of the last 100 training episodes over training time, without evaluations. {band}",
            lambda: learning_curves(
                runs, styles, "charts/episodic_return", "return, last 100 episodes", over="time/seconds"
            ),
        ),
        (
            "curves_test.png",
            f"Return{levels} at the evaluations during training. {band}",
            lambda: learning_curves(runs, styles, "eval/test_return", "return of evaluations"),
        ),
        (
            "return_latency.png",
            "Test return against the latency of one frame. Bars show the range over runs; the grey line connects the "
            "Pareto-optimal methods.",
            lambda: return_against_latency(runs, styles),
        ),
        (
            "widths.png",
            "Widths of the groups of coupled channels over training.",
            lambda: widths_over_time(runs),
        ),
        (
            "step_effects.png",
            "Return of the last 100 training episodes, and how much each pruning step changed the policy and the "
            "values, on frames that compensation did not use. One point per step of every run.",
            lambda: step_effects(runs, styles),
        ),
        (
            "wall_clock.png",
            "Training time, without evaluations.",
            lambda: wall_clock(runs, styles),
        ),
        (
            "scores.png",
            "Normalised test returns over all games with 95 % stratified bootstrap intervals.",
            lambda: score_intervals(scores, styles),
        ),
        (
            "profiles.png",
            "Performance profiles with pointwise 95 % bootstrap bands.",
            lambda: performance_profiles(scores, styles),
        ),
    ]
    drawn = []
    for name, caption, draw in candidates:
        figure = draw()
        if figure is None:
            (folder / name).unlink(missing_ok=True)  # delete an older report's plot, which would not match this one
            continue
        figure.savefig(folder / name)
        drawn.append((name, caption))
    return drawn


def _markdown(runs: Sequence[RunRecord], tables: Sequence[Table], pictures: Sequence[tuple[str, str]]) -> str:
    finished = sum(run.finished for run in runs)
    state = (
        "all finished" if finished == len(runs) else f"{finished} finished; the results of the others are provisional"
    )
    parts = [
        "# Report",
        "",
        f"{counted(len(runs), 'run')}, {state}. Results of every run: [runs.csv](runs.csv).",
        "",
    ]
    parts += [table.markdown() for table in tables]
    for name, caption in pictures:
        parts += [f"![{caption}]({name})", "", f"*{caption}*", ""]
    return "\n".join(parts)
