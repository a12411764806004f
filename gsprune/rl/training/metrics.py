"""The metrics of a training: one row per iteration, as a line of JSON and as TensorBoard scalars.

Keys that begin with ``time/`` depend on the machine and its load. All others are equal in two runs of one configuration
on the same CPU, even if one of them was interrupted and resumed.
"""

from __future__ import annotations

import json
import math
import os
from collections import deque
from collections.abc import Mapping, Sequence
from numbers import Integral, Real
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from torch import Tensor

from gsprune.distributed.ranks import Ranks
from gsprune.errors import needs

__all__ = ["EpisodeTracker", "MetricWriter", "Row", "as_row", "read_metrics"]

Row = Mapping[str, float | int | None]

_WINDOW = 100  # episodes in the mean return, as usual


def as_row(metrics: Any, trainer: str) -> dict[str, float | int | None]:
    """The metrics of an iteration as Python numbers.

    Args:
        metrics: name -> None, a number, or a tensor or array of one element.
        trainer: the class that returned them, for messages.

    Raises:
        TypeError: `metrics` is no mapping, or a value is no number; the message names it.
    """
    if not isinstance(metrics, Mapping):
        raise TypeError(f"{trainer}._iterate() must return a mapping of metrics, got {type(metrics).__name__}")
    row: dict[str, float | int | None] = {}
    for name, value in metrics.items():
        is_array = isinstance(value, Tensor | np.ndarray)
        number = value.item() if is_array and math.prod(value.shape) == 1 else value
        if number is not None and not isinstance(number, Real):
            raise TypeError(f"{trainer}._iterate() must return numbers, got {value!r} for {name!r}")
        row[name] = int(number) if isinstance(number, Integral) else None if number is None else float(number)
    return row


class _Ended(NamedTuple):
    """A finished episode. Episodes are sorted by time, then by environment.

    Attributes:
        step: number of earlier `EpisodeTracker.add` calls since the last row.
        env: number of its environment among those of all processes.
        episodic_return: sum of its rewards.
        length: its number of environment steps.
    """

    step: int
    env: int
    episodic_return: float
    length: int


class EpisodeTracker:
    """Returns and lengths of the episodes of a training: all since the last row, and the last 100.

    Every process adds the episodes of its own environments. The first process has the metrics of all.
    """

    def __init__(self, ranks: Ranks, first_env: int = 0) -> None:
        """Begin without episodes; `first_env` is the number of this process's first environment among those of all."""
        self._ranks = ranks
        self._first_env = first_env
        self._steps = 0
        self._new: list[_Ended] = []  # since the last row, of this process
        self._num_episodes = 0
        self._returns: deque[float] = deque(maxlen=_WINDOW)
        self._lengths: deque[int] = deque(maxlen=_WINDOW)

    def add(self, infos: Mapping[str, Any]) -> None:
        """Add the episodes that ended in one step, from the infos of a vector environment."""
        if "episode" in infos:
            returns, lengths = infos["episode"]["r"], infos["episode"]["l"]
            for env in np.flatnonzero(infos["_episode"]).tolist():
                self._new.append(_Ended(self._steps, self._first_env + env, float(returns[env]), int(lengths[env])))
        self._steps += 1

    def take_row(self) -> dict[str, float | int | None]:
        """The metrics of the episodes; resets those "since the last row". All processes must call this.

        Keys: ``charts/episodic_return`` and ``charts/episodic_length`` (mean of the last 100 episodes),
        ``charts/return_since_last`` and ``charts/episodes_since_last`` (of the episodes since the last row),
        ``charts/episodes`` (all).
        """
        parts = self._ranks.gather(self._new) or ()
        self._new, self._steps = [], 0
        new = sorted(episode for part in parts for episode in part)
        new_returns = [episode.episodic_return for episode in new]
        self._num_episodes += len(new)
        self._returns.extend(new_returns)
        self._lengths.extend(episode.length for episode in new)
        return {
            "charts/episodic_return": _mean(self._returns),
            "charts/episodic_length": _mean(self._lengths),
            "charts/return_since_last": _mean(new_returns),
            "charts/episodes_since_last": len(new),
            "charts/episodes": self._num_episodes,
        }

    def state_dict(self) -> dict[str, Any]:
        """The state to save; call this right after `take_row`."""
        return {"returns": [*self._returns], "lengths": [*self._lengths], "num_episodes": self._num_episodes}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore the result of `state_dict`."""
        self._returns = deque(state["returns"], maxlen=_WINDOW)
        self._lengths = deque(state["lengths"], maxlen=_WINDOW)
        self._num_episodes = state["num_episodes"]


def _mean(values: Sequence[float]) -> float | None:
    return float(np.mean(values)) if values else None


class MetricWriter:
    """Appends rows to ``metrics.jsonl`` and to TensorBoard's event files."""

    def __init__(self, folder: Path, keep_bytes: int = 0, next_step: int = 1) -> None:
        """Open both files.

        Args:
            folder: the run folder.
            keep_bytes: size of ``metrics.jsonl`` at the checkpoint. Later rows are deleted, because they will be
                written again.
            next_step: scalars of TensorBoard from this step on are deleted, too.

        Raises:
            MissingExtraError: tensorboard is not installed.
        """
        with needs("tensorboard", "train"):
            from torch.utils.tensorboard import SummaryWriter
        self._jsonl = (folder / "metrics.jsonl").open("ab")
        self._jsonl.truncate(min(keep_bytes, self._jsonl.tell()))
        self._jsonl.seek(0, os.SEEK_END)
        self._tensorboard = SummaryWriter(str(folder / "tensorboard"), purge_step=next_step)

    def write(self, step: int, row: Row) -> None:
        """Append a row, with ``step`` before its keys; NaN and infinity become null in JSON."""
        finite = {key: value if value is None or math.isfinite(value) else None for key, value in row.items()}
        self._jsonl.write(json.dumps({"step": step, **finite}).encode() + b"\n")
        self._jsonl.flush()
        for key, value in finite.items():
            if value is not None:
                self._tensorboard.add_scalar(key, value, step)

    def sync(self) -> int:
        """Flush ``metrics.jsonl`` to disk; return its size in bytes, for a checkpoint."""
        os.fsync(self._jsonl.fileno())
        return self._jsonl.tell()

    def close(self) -> None:
        """Flush and close both files."""
        self._jsonl.close()
        self._tensorboard.close()


def read_metrics(folder: Path) -> list[dict[str, Any]]:
    """The rows of a run, oldest first, without an incomplete last line (of a run in progress)."""
    text = (folder / "metrics.jsonl").read_text()
    return [json.loads(line) for line in text.splitlines(keepends=True) if line.endswith("\n")]
