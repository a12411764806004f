"""The tables of a report: per game, over all games, under pixel noise, and of pruning steps."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path

from gsprune.report.cells import bracketed, mean_cell, return_cell, run_count
from gsprune.report.dips import dips_of
from gsprune.report.outcome import Outcome
from gsprune.report.series import resampling
from gsprune.report.style import format_seconds, format_steps
from gsprune.report.table import UNKNOWN, Table, percent
from gsprune.rl.evaluation.protocol import CLEAN_TRACKS, NOISE_TRACKS
from gsprune.rl.evaluation.statistics import (
    bootstrap_interval,
    improvement_interval,
    interquartile_mean,
    mean,
)

__all__ = ["aggregate_table", "effect_table", "game_table", "noise_table", "normalised_scores", "write_runs_csv"]


def game_table(outcomes: Sequence[Outcome], game: str, methods: Sequence[str]) -> Table:
    """The results of one game: one row per method with means over its runs, and bootstrap intervals of returns.

    Args:
        outcomes: the outcomes of all runs; other games are omitted.
        game: the game.
        methods: the order of the rows.
    """
    rows = []
    of_game = [outcome for outcome in outcomes if outcome.run.game == game]
    has_levels = not _has_only_test_returns(of_game)
    for method in methods:
        selected = [outcome for outcome in of_game if outcome.run.method == method]
        if not selected:
            continue
        rows.append(
            (
                method,
                run_count(selected),
                mean_cell(selected, lambda o: o.steps, format_steps),
                *([return_cell([o.train_return for o in selected])] if has_levels else []),
                return_cell([o.test_return for o in selected]),
                mean_cell(selected, lambda o: o.sparsity, percent),
                mean_cell(selected, lambda o: o.channel_sparsity, percent),
                mean_cell(selected, lambda o: o.param_sparsity, percent),
                mean_cell(selected, lambda o: o.params, lambda value: f"{value:,.0f}"),
                mean_cell(selected, lambda o: o.macs, lambda value: f"{value / 1e6:.2f}"),
                mean_cell(selected, lambda o: o.latency_ms, lambda value: f"{value:.2f}"),
                mean_cell(selected, lambda o: o.seconds, format_seconds),
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


def aggregate_table(outcomes: Sequence[Outcome], methods: Sequence[str], baseline: str) -> Table | None:
    """Results over all games: interquartile mean of normalised test returns, and probability to beat the baseline.

    Args:
        outcomes: the outcomes of all runs; runs without a test return are omitted.
        methods: the order of the rows.
        baseline: the method to compare the others with.

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
        interval = bootstrap_interval(scores[method], interquartile_mean, rng=resampling())
        average = bootstrap_interval(scores[method], mean, rng=resampling())
        count = sum(len(values) for values in scores[method].values())
        shared = {game: values for game, values in scores[method].items() if game in scores.get(baseline, {})}
        better = UNKNOWN
        if shared and method != baseline:
            other = {game: scores[baseline][game] for game in shared}
            single = all(len(values) == 1 for values in (*shared.values(), *other.values()))
            probability = improvement_interval(shared, other, rng=resampling())
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


def noise_table(outcomes: Sequence[Outcome], methods: Sequence[str]) -> Table | None:
    """Test returns under pixel noise, as measured by `gsprune eval --noise`, with one row per game and method.

    Args:
        outcomes: the outcomes of all runs; runs without the noise track are omitted.
        methods: the order of the rows.

    Returns:
        The table, or None if no run has the noise track.
    """
    names = [CLEAN_TRACKS[-1].name, *(track.name for track in NOISE_TRACKS)]
    rows = []
    for game in sorted({outcome.run.game for outcome in outcomes}):
        for method in methods:
            selected = [outcome.run for outcome in outcomes if (outcome.run.game, outcome.run.method) == (game, method)]
            tracks = [run.evaluation.get("tracks", {}) for run in selected]
            noisy = [track for track in tracks if all(name in track for name in names)]
            if noisy:
                cells = (return_cell([track[name]["mean"] for track in noisy]) for name in names)
                rows.append((method, game, str(len(noisy)), *cells))
    if not rows:
        return None
    headings = ("method", "game", "runs", "no noise", *(f"sigma {track.noise_sigma:g}" for track in NOISE_TRACKS))
    levels = " on the full distribution of levels" if any(o.train_return is not None for o in outcomes) else ""
    note = f"Return{levels} with Gaussian pixel noise, in grey levels of 0 to 255."
    return Table("Pixel noise", headings, tuple(rows), note)


def effect_table(outcomes: Sequence[Outcome], methods: Sequence[str]) -> Table | None:
    """The largest effect of a pruning step on the agent, with one row per game and method.

    Args:
        outcomes: the outcomes of all runs; runs without a measured step are omitted.
        methods: the order of the rows.

    Returns:
        The table, or None if no run has measured a step.
    """
    rows = []
    for game in sorted({outcome.run.game for outcome in outcomes}):
        for method in methods:
            selected = [
                outcome
                for outcome in outcomes
                if (outcome.run.game, outcome.run.method) == (game, method) and outcome.measured_a_step
            ]
            if selected:
                cells = (
                    mean_cell(selected, lambda o: o.largest_kl, lambda value: f"{value:.3g}"),
                    mean_cell(selected, lambda o: o.largest_action_change, percent),
                    mean_cell(selected, lambda o: o.largest_value_error, lambda value: f"{value:.3g}"),
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


def normalised_scores(outcomes: Sequence[Outcome], method: str) -> dict[str, list[float]]:
    """Game -> normalised test returns of a method's runs; games without a test return are omitted."""
    scores: dict[str, list[float]] = {}
    for outcome in outcomes:
        value = outcome.normalised_test
        if outcome.run.method == method and value is not None:
            scores.setdefault(outcome.run.game, []).append(value)
    return dict(sorted(scores.items()))


def write_runs_csv(outcomes: Sequence[Outcome], path: Path) -> None:
    """Write one line per run with its results as plain numbers; unknown results are empty.

    Args:
        outcomes: the outcomes of the runs.
        path: the file; an older one is overwritten.
    """
    figures = (
        "steps", "seconds", "train_return", "test_return", "normalised_test", "training_return", "sparsity",
        "channel_sparsity", "param_sparsity", "params", "macs", "latency_ms", "dense_latency_ms", "largest_kl",
        "largest_action_change", "largest_value_error",
    )  # fmt: skip
    dip_figures = ("depth", "control_depth", "recovered", "recovery")
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(
            ["method", "game", "seed", "finished", *figures, *(f"dip_{name}" for name in dip_figures), "folder"]
        )
        for outcome in outcomes:
            run = outcome.run
            values = [getattr(outcome, name) for name in figures]
            dips = dips_of(run)
            values += [None if dips is None else getattr(dips, name) for name in dip_figures]
            writer.writerow([run.method, run.game, run.seed, run.finished, *values, run.folder])


def _has_only_test_returns(outcomes: Sequence[Outcome]) -> bool:
    """True for an environment without training levels, once it has been evaluated."""
    return all(o.train_return is None for o in outcomes) and any(o.test_return is not None for o in outcomes)
