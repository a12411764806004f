"""The tables of a report: per game, over all games, under pixel noise, and of pruning steps.

Runs without a table's results are omitted. A function returns None if no run has them. `methods` is the order of the
rows.
"""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path

from gsprune.report.cells import bracketed, mean_cell, return_cell, run_count
from gsprune.report.dips import dips_of
from gsprune.report.record import RunRecord, by_game_and_method
from gsprune.report.series import bootstrap_generator
from gsprune.report.style import format_seconds, format_steps
from gsprune.report.table import UNKNOWN, Table, percent
from gsprune.rl.evaluation.protocol import CLEAN_TRACKS, NOISE_TRACKS
from gsprune.rl.evaluation.statistics import bootstrap_interval, improvement_interval, interquartile_mean, mean

__all__ = ["aggregate_table", "effect_table", "game_table", "noise_table", "normalised_scores", "write_runs_csv"]

_EFFECTS = ("kl", "action_change", "value_error")  # metrics of a pruning step


def game_table(runs: Sequence[RunRecord], game: str, methods: Sequence[str]) -> Table:
    """The results of one game: one row per method with means over its runs, and bootstrap intervals of returns."""
    of_game = [run for run in runs if run.game == game]
    has_levels = not _has_only_test_returns(of_game)
    rows = []
    for _, method, selected in by_game_and_method(of_game, methods):
        rows.append(
            (
                method,
                run_count(selected),
                mean_cell(selected, lambda run: run.steps, format_steps),
                *([return_cell([run.train_return for run in selected])] if has_levels else []),
                return_cell([run.test_return for run in selected]),
                mean_cell(selected, lambda run: run.last("pruning/sparsity"), percent),
                mean_cell(selected, lambda run: run.last("pruning/channel_sparsity"), percent),
                mean_cell(selected, lambda run: run.last("pruning/param_sparsity"), percent),
                mean_cell(selected, lambda run: run.last("pruning/params"), lambda value: f"{value:,.0f}"),
                mean_cell(selected, lambda run: run.last("pruning/macs"), lambda value: f"{value / 1e6:.2f}"),
                mean_cell(selected, lambda run: run.latency_ms, lambda value: f"{value:.2f}"),
                mean_cell(selected, lambda run: run.seconds, format_seconds),
            )
        )
    headings = (
        "method", "runs", "steps", *(("train return", "test return") if has_levels else ("return",)), "sparsity",
        "channels removed", "params removed", "params", "MACs (M)", "latency (ms)", "time",
    )  # fmt: skip
    note = (
        "Means over runs; in brackets the 95 % bootstrap interval over runs, which is hardly more than the range for "
        "two or three runs. Runs: 1/2 means that one of two is finished. "
        f"{'Test return: on the full distribution of levels. ' if has_levels else ''}"
        "Sparsity: the fraction of channels that are removed, or of weights that are masked (which saves no time). "
        "Latency: one frame, one thread. Time: of the training, without evaluations."
    )
    return Table(game, headings, tuple(rows), note)


def aggregate_table(runs: Sequence[RunRecord], methods: Sequence[str], baseline: str) -> Table | None:
    """Results over all games: interquartile mean of normalised test returns, and probability to beat the baseline.

    At least two runs must have a test return.
    """
    scores = {method: normalised_scores(runs, method) for method in methods}
    rows = []
    if sum(len(values) for games in scores.values() for values in games.values()) < 2:
        return None
    for method in methods:
        if not scores[method]:
            continue
        interval = bootstrap_interval(scores[method], interquartile_mean, rng=bootstrap_generator())
        average = bootstrap_interval(scores[method], mean, rng=bootstrap_generator())
        count = sum(len(values) for values in scores[method].values())
        shared = {game: values for game, values in scores[method].items() if game in scores.get(baseline, {})}
        better = UNKNOWN
        if shared and method != baseline:
            other = {game: scores[baseline][game] for game in shared}
            single = all(len(values) == 1 for values in (*shared.values(), *other.values()))
            probability = improvement_interval(shared, other, rng=bootstrap_generator())
            better = bracketed(probability, digits=2, alone=single)
        rows.append(
            (
                method,
                str(len(scores[method])),
                str(count),
                bracketed(interval, digits=3, alone=count == len(scores[method])),
                bracketed(average, digits=3, alone=count == len(scores[method])),
                better,
            )
        )
    headings = ("method", "games", "runs", "IQM, normalised", "mean, normalised", f"P(better than {baseline})")
    note = (
        "Test returns, normalised per game (0: trivial, 1: perfect). IQM: mean of the middle half of all runs. In "
        "brackets: 95 % stratified bootstrap interval (runs resampled within each game). P: the fraction of pairs of "
        "runs in which the method has the higher return. If all pairs agree, its interval is the exact binomial one, "
        "which is wide for few runs."
    )
    return Table("All games", headings, tuple(rows), note)


def noise_table(runs: Sequence[RunRecord], methods: Sequence[str]) -> Table | None:
    """Test returns under pixel noise, as measured by `gsprune eval --noise`, with one row per game and method."""
    names = [CLEAN_TRACKS[-1].name, *(track.name for track in NOISE_TRACKS)]
    noisy = [run for run in runs if all(name in run.evaluation.get("tracks", {}) for name in names)]
    rows = []
    for game, method, selected in by_game_and_method(noisy, methods):
        cells = (return_cell([run.evaluation["tracks"][name]["mean"] for run in selected]) for name in names)
        rows.append((method, game, str(len(selected)), *cells))
    if not rows:
        return None
    headings = ("method", "game", "runs", "no noise", *(f"sigma {track.noise_sigma:g}" for track in NOISE_TRACKS))
    levels = " on the full distribution of levels" if any(run.train_return is not None for run in runs) else ""
    note = f"Return{levels} with Gaussian pixel noise, in grey levels of 0 to 255."
    return Table("Pixel noise", headings, tuple(rows), note)


def effect_table(runs: Sequence[RunRecord], methods: Sequence[str]) -> Table | None:
    """The largest effect of a pruning step on the agent, with one row per game and method."""
    measured = [run for run in runs if any(run.largest(f"pruning/{name}") is not None for name in _EFFECTS)]
    rows = []
    for game, method, selected in by_game_and_method(measured, methods):
        cells = (
            mean_cell(selected, lambda run: run.largest("pruning/kl"), lambda value: f"{value:.3g}"),
            mean_cell(selected, lambda run: run.largest("pruning/action_change"), percent),
            mean_cell(selected, lambda run: run.largest("pruning/value_error"), lambda value: f"{value:.3g}"),
        )
        rows.append((method, game, str(len(selected)), *cells))
    if not rows:
        return None
    headings = ("method", "game", "runs", "KL", "greedy actions changed", "value change / std")
    note = (
        "The largest effect of a pruning step in each run, mean over runs, measured right after the step on frames "
        "that compensation did not use. KL: KL(policy before || policy after), PPO only. Value change: root mean "
        "square, in standard deviations of the values before the step. The largest step of a schedule with many small "
        "steps is smaller than that of a schedule with few."
    )
    return Table("Effect of pruning steps", headings, tuple(rows), note)


def normalised_scores(runs: Sequence[RunRecord], method: str) -> dict[str, list[float]]:
    """Game -> normalised test returns of a method's runs; games without a test return are omitted."""
    scores: dict[str, list[float]] = {}
    for run in runs:
        value = run.normalised_test
        if run.method == method and value is not None:
            scores.setdefault(run.game, []).append(value)
    return dict(sorted(scores.items()))


def write_runs_csv(runs: Sequence[RunRecord], path: Path) -> None:
    """Write one line per run with its results as plain numbers; unknown results are empty."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        for number, run in enumerate(runs):
            values = _csv_values(run)
            if number == 0:
                writer.writerow(values)
            writer.writerow(values.values())


def _csv_values(run: RunRecord) -> dict[str, object]:
    """The line of a run: heading -> value."""
    dips = dips_of(run)  # None without a pruning step
    return {
        "method": run.method,
        "game": run.game,
        "seed": run.seed,
        "finished": run.finished,
        "steps": run.steps,
        "seconds": run.seconds,
        "train_return": run.train_return,
        "test_return": run.test_return,
        "normalised_test": run.normalised_test,
        "training_return": run.last("charts/episodic_return"),
        **{
            name: run.last(f"pruning/{name}")
            for name in ("sparsity", "channel_sparsity", "param_sparsity", "params", "macs")
        },
        "latency_ms": run.latency_ms,
        "dense_latency_ms": run.dense_latency_ms,
        **{f"largest_{name}": run.largest(f"pruning/{name}") for name in _EFFECTS},
        **{f"dip_{name}": getattr(dips, name, None) for name in ("depth", "control_depth", "recovered", "recovery")},
        "folder": run.folder,
    }


def _has_only_test_returns(runs: Sequence[RunRecord]) -> bool:
    """True for an environment without training levels, once it has been evaluated."""
    return all(run.train_return is None for run in runs) and any(run.test_return is not None for run in runs)
