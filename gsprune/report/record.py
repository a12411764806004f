"""The files of one run, and the results that a report computes from them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from gsprune.arrays import Float64Array
from gsprune.report.series import Curve
from gsprune.rl.envs.provider import EnvironmentRequest
from gsprune.rl.envs.registry import score_range_of

__all__ = ["RunRecord", "by_game_and_method", "equal_widths"]


@dataclass(frozen=True)
class RunRecord:
    """The files of one run, read into memory. A result that is not available yet is None.

    Attributes:
        folder: the run folder.
        method: the label that separates it from other runs of the same game and seed.
        config: the contents of ``config.json``.
        rows: the rows of ``metrics.jsonl``, oldest first.
        summary: the contents of ``summary.json``; empty before the end of the training.
        evaluation: the contents of ``eval.json``; empty if `gsprune eval` has not run.
        latency_ms: time of one forward pass with one frame on one thread at the end, milliseconds.
        dense_latency_ms: the same for the dense network, measured in the same process.
    """

    folder: Path
    method: str
    config: Mapping[str, Any]
    rows: Sequence[Mapping[str, Any]]
    summary: Mapping[str, Any]
    evaluation: Mapping[str, Any]
    latency_ms: float | None
    dense_latency_ms: float | None

    @property
    def game(self) -> str:
        """The id of the environment."""
        return str(self.config["env_id"])

    @property
    def seed(self) -> int:
        """The training seed."""
        return int(self.config["seed"])

    @property
    def finished(self) -> bool:
        """True if the training has finished."""
        return bool(self.summary)

    @property
    def steps(self) -> int | None:
        """Environment steps trained."""
        return int(self.rows[-1]["step"]) if self.rows else None

    @property
    def seconds(self) -> float | None:
        """Training time, without evaluations."""
        return self.last("time/seconds")

    @property
    def train_return(self) -> float | None:
        """Mean return on the training levels; None for an environment without such levels. See `test_return`."""
        return self._return("train")

    @property
    def test_return(self) -> float | None:
        """Mean return on the full distribution of levels, or in an environment without levels.

        It comes from `gsprune eval` if that evaluated the newest checkpoint on at least as many episodes as the run
        itself. Otherwise it comes from the summary, or from the last evaluation during training.
        """
        return self._return("test")

    @property
    def normalised_test(self) -> float | None:
        """The test return on the game's 0-to-1 scale; None for a game without one."""
        scale = score_range_of(EnvironmentRequest.of_run(self.config))
        return None if self.test_return is None or scale is None else scale.normalised(self.test_return)

    def column(self, key: str) -> Float64Array:
        """(T,) float64 values of a metric; NaN in rows without it."""
        return np.array([_number(row.get(key)) for row in self.rows], dtype=np.float64)

    def curve(self, key: str, over: str = "step") -> Curve:
        """A metric over environment steps, or over the metric `over`."""
        return Curve(self.column(over), self.column(key))

    def last(self, key: str) -> float | None:
        """The newest value of a metric, or None."""
        values = [row[key] for row in self.rows if row.get(key) is not None]
        return float(values[-1]) if values else None

    def largest(self, key: str) -> float | None:
        """The largest value of a metric, or None."""
        values = [float(row[key]) for row in self.rows if row.get(key) is not None]
        return max(values, default=None)

    def widths(self) -> dict[str, Float64Array]:
        """Group -> (T,) widths over the rows; groups in the order of the forward pass."""
        names = [key for key in (self.rows[0] if self.rows else {}) if key.startswith("width/")]
        return {key.removeprefix("width/"): self.column(key) for key in names}

    def pruning_steps(self) -> list[int]:
        """Environment steps of the rows in which the sparsity (physical or masked) increased."""
        steps = self.column("step")
        rose = np.zeros(len(steps), dtype=np.bool_)
        for key in ("pruning/sparsity", "pruning/channel_sparsity"):
            values = np.nan_to_num(self.column(key))
            # The first row never counts: a network may be small from the start.
            rose |= np.diff(values, prepend=values[:1]) > 1e-12
        return [int(step) for step in steps[rose]]

    def _return(self, levels: str) -> float | None:
        track = self.evaluation.get("tracks", {}).get(levels)
        if track is not None and self.evaluation["step"] == self.steps:
            episodes = self.evaluation["num_envs"] * self.evaluation["episodes_per_env"]
            if not self.finished or episodes >= self.config.get("eval_episodes", 0):
                return float(track["mean"])
        final = self.summary.get(f"{levels}_return")
        return self.last(f"eval/{levels}_return") if final is None else float(final)


def equal_widths(widths: Mapping[str, Float64Array]) -> list[tuple[list[str], Float64Array]]:
    """(groups, their widths) for groups that have the same widths all the time, which share a line in plots."""
    groups: dict[bytes, list[str]] = {}
    for name, values in widths.items():
        groups.setdefault(values.tobytes(), []).append(name)
    return [(names, widths[names[0]]) for names in groups.values()]


def by_game_and_method(runs: Sequence[RunRecord], methods: Sequence[str]) -> Iterator[tuple[str, str, list[RunRecord]]]:
    """Yield (game, method, runs) for all pairs with runs, by game and then in the order of the methods."""
    for game in sorted({run.game for run in runs}):
        for method in methods:
            selected = [run for run in runs if (run.game, run.method) == (game, method)]
            if selected:
                yield game, method, selected


def _number(value: object) -> float:
    return float(value) if isinstance(value, (int, float)) else float("nan")
