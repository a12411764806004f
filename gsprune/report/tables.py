"""The tables of a report: per game, over all games, and the dips after pruning."""

from __future__ import annotations

import csv
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from gsprune.report.load import Run
from gsprune.report.outcome import Outcome
from gsprune.report.style import format_seconds, format_steps
from gsprune.rl.dip import DipSummary, ReturnSeries, summarise_dips
from gsprune.rl.statistics import Interval, bootstrap_interval, improvement_interval, interquartile_mean, mean

__all__ = ["Table", "aggregate_table", "dip_table", "game_table", "normalised_scores", "write_runs_csv"]

_UNKNOWN = "-"
_DIP_WINDOW = 0.02  # of the training: several episodes, and short against the schedule
_DIP_HORIZON = 0.1


@dataclass(frozen=True)
class Table:
    """A table of text.

    Attributes:
        title: what it is about.
        headings: of the columns; the first column is text, the others are numbers.
        rows: one tuple per row, as long as the headings.
        note: how to read it; may be empty.
    """

    title: str
    headings: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    note: str = ""

    def markdown(self) -> str:
        """The table in Markdown, with its title as a heading."""
        rows = [[cell.replace("|", "\\|") for cell in row] for row in self.rows]
        lines = [
            f"## {self.title}",
            "",
            f"| {' | '.join(self.headings)} |",
            f"|{'|'.join(['---', *['---:'] * (len(self.headings) - 1)])}|",
            *(f"| {' | '.join(row)} |" for row in rows),
            "",
        ]
        return "\n".join([*lines, self.note, ""] if self.note else lines)


def game_table(outcomes: Sequence[Outcome], game: str, methods: Sequence[str], seed: int = 0) -> Table:
    """One game: a row per method, means over its runs; returns of two runs or more with their bootstrap interval.

    Args:
        outcomes: of all runs; those of other games are left out.
        game: the game.
        methods: the order of the rows.
        seed: of the bootstrap.

    Returns:
        The table.
    """
    rows = []
    for method in methods:
        here = [outcome for outcome in outcomes if (outcome.run.game, outcome.run.method) == (game, method)]
        if not here:
            continue
        rows.append(
            (
                method,
                _run_count(here),
                _mean(here, lambda o: o.steps, format_steps),
                _return_cell([o.train_return for o in here], seed),
                _return_cell([o.test_return for o in here], seed),
                _mean(here, lambda o: o.sparsity, _percent),
                _mean(here, lambda o: o.channel_sparsity, _percent),
                _mean(here, lambda o: o.param_sparsity, _percent),
                _mean(here, lambda o: o.params, lambda value: f"{value:,.0f}"),
                _mean(here, lambda o: o.macs, lambda value: f"{value / 1e6:.2f}"),
                _mean(here, lambda o: o.latency_ms, lambda value: f"{value:.2f}"),
                _mean(here, lambda o: o.seconds, format_seconds),
            )
        )
    headings = (
        "method", "runs", "steps", "train return", "test return", "sparsity", "channels gone", "params gone", "params",
        "MACs (M)", "latency (ms)", "time",
    )  # fmt: skip
    note = (
        "Means over runs; in brackets the 95 % bootstrap interval over them. Test return: on the full distribution of "
        "levels. Time: of the training, evaluations during it included. Sparsity is what the method counts: "
        "channels that are gone, or weights that are masked but still computed with. Latency: one frame."
    )
    return Table(game, headings, tuple(rows), note)


def aggregate_table(outcomes: Sequence[Outcome], methods: Sequence[str], baseline: str, seed: int = 0) -> Table | None:
    """All games: interquartile mean of normalised test returns, and how likely a method beats the baseline.

    Args:
        outcomes: of all runs; those without a test return are left out.
        methods: the order of the rows.
        baseline: the method that the others are compared with.
        seed: of the bootstrap.

    Returns:
        The table, or None if fewer than two runs have a test return.
    """
    scores = {method: normalised_scores(outcomes, method) for method in methods}
    rows = []
    if sum(len(values) for games in scores.values() for values in games.values()) < 2:
        return None
    for method in methods:
        if not scores[method]:
            continue
        interval = bootstrap_interval(scores[method], interquartile_mean, rng=np.random.default_rng(seed))
        average = bootstrap_interval(scores[method], mean, rng=np.random.default_rng(seed))
        count = sum(len(values) for values in scores[method].values())
        shared = {game: values for game, values in scores[method].items() if game in scores.get(baseline, {})}
        better = _UNKNOWN
        if shared and method != baseline:
            other = {game: scores[baseline][game] for game in shared}
            better = _bracketed(improvement_interval(shared, other, rng=np.random.default_rng(seed)), digits=2)
        rows.append(
            (
                method,
                str(len(scores[method])),
                str(count),
                _bracketed(interval, digits=3, alone=count == len(scores[method])),
                _bracketed(average, digits=3, alone=count == len(scores[method])),
                better,
            )
        )
    headings = ("method", "games", "runs", "IQM, normalised", "mean, normalised", f"P(better than {baseline})")
    note = (
        "Test returns, normalised per game (0: trivial, 1: perfect). IQM: mean of the middle half of all runs. In "
        "brackets: 95 % stratified bootstrap interval (runs resampled within each game)."
    )
    return Table("All games", headings, tuple(rows), note)


def dip_table(runs: Sequence[Run], methods: Sequence[str]) -> Table | None:
    """How far the training return falls after pruning, and how soon it is back; a row per run.

    Args:
        runs: all runs; those that never pruned are left out.
        methods: the order of the rows.

    Returns:
        The table, or None if no run pruned.
    """
    rows = []
    for run in sorted(runs, key=lambda run: (methods.index(run.method), run.game, run.seed)):
        summary = _dips(run)
        if summary is not None and summary.dips:
            rows.append(
                (
                    f"{run.method}: {run.game}, seed {run.seed}",
                    str(len(run.pruning_steps())),
                    str(len(summary.dips)),
                    _signed(summary.depth),
                    _signed(summary.control_depth),
                    _percent(summary.recovered),
                    _UNKNOWN if math.isnan(summary.recovery) else format_steps(summary.recovery),
                )
            )
    if not rows:
        return None
    headings = ("run", "pruning steps", "bursts", "dip", "dip without pruning", "recovered", "recovery (steps)")
    note = (
        "Dip: mean return before a burst of pruning steps minus the lowest windowed mean after it; negative where the "
        "return only rose. A schedule with a step per iteration is one burst. "
        f"Windows are {_percent(_DIP_WINDOW)} of the training, the horizon is {_percent(_DIP_HORIZON)} of it. The dip "
        "without pruning is measured in the same way at moments with no pruning near them: what noise alone does."
    )
    return Table("Dips after pruning", headings, tuple(rows), note)


def normalised_scores(outcomes: Sequence[Outcome], method: str) -> dict[str, list[float]]:
    """Per game the normalised test returns of a method's runs; games without any are left out."""
    scores: dict[str, list[float]] = {}
    for outcome in outcomes:
        value = outcome.normalised_test
        if outcome.run.method == method and value is not None:
            scores.setdefault(outcome.run.game, []).append(value)
    return dict(sorted(scores.items()))


def write_runs_csv(outcomes: Sequence[Outcome], path: Path) -> None:
    """One line per run with its figures as plain numbers; empty where unknown.

    Args:
        outcomes: of the runs.
        path: the file; an older one is overwritten.
    """
    figures = (
        "steps", "seconds", "train_return", "test_return", "normalised_test", "training_return", "sparsity",
        "channel_sparsity", "param_sparsity", "params", "macs", "latency_ms", "dense_latency_ms",
    )  # fmt: skip
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["method", "game", "seed", "finished", *figures, "folder"])
        for outcome in outcomes:
            run = outcome.run
            values = [getattr(outcome, name) for name in figures]
            writer.writerow([run.method, run.game, run.seed, run.finished, *values, run.folder])


def _dips(run: Run) -> DipSummary | None:
    if len(run.rows) < 2:
        return None
    steps = run.column("step").astype(np.int64)
    episodes = np.nan_to_num(run.column("charts/episodes_since_last"))
    series = ReturnSeries(steps, run.column("charts/return_since_last"), episodes)
    window, horizon = (max(1, int(part * steps[-1])) for part in (_DIP_WINDOW, _DIP_HORIZON))
    return summarise_dips(series, run.pruning_steps(), window, horizon)


def _run_count(outcomes: Sequence[Outcome]) -> str:
    finished = sum(outcome.run.finished for outcome in outcomes)
    return str(finished) if finished == len(outcomes) else f"{len(outcomes)} ({finished} finished)"


def _mean(outcomes: Sequence[Outcome], figure: Callable[[Outcome], float | None], text: Callable[[float], str]) -> str:
    known = [value for value in map(figure, outcomes) if value is not None]
    return text(float(np.mean(known))) if known else _UNKNOWN


def _return_cell(values: Sequence[float | None], seed: int) -> str:
    known = [value for value in values if value is not None]
    if not known:
        return _UNKNOWN
    interval = bootstrap_interval({"game": known}, mean, rng=np.random.default_rng(seed))
    return _bracketed(interval, digits=2, alone=len(known) == 1)


def _bracketed(interval: Interval, digits: int, alone: bool = False) -> str:
    """An estimate with its interval, or without where a single run gives none."""
    text = f"{interval.estimate:.{digits}f}"
    return text if alone else f"{text} [{interval.low:.{digits}f}, {interval.high:.{digits}f}]"


def _signed(value: float) -> str:
    return _UNKNOWN if math.isnan(value) else f"{value:+.2f}"


def _percent(value: float) -> str:
    return f"{100 * value:.3g} %"
