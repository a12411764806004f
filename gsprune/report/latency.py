"""Latencies of the networks of many runs, timed side by side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from gsprune.measure import latencies
from gsprune.networks import example_frames
from gsprune.report.load import Run
from gsprune.rl.trained import load_agent

__all__ = ["measured_latencies"]

_SECONDS_PER_NETWORK = 2.0


def measured_latencies(runs: Sequence[Run]) -> Mapping[Path, float]:
    """Median milliseconds of one forward with one frame, per run folder, for the network of its newest checkpoint.

    All networks take turns, so that what else the machine does slows all of them alike.

    Args:
        runs: at least one.

    Returns:
        ``{run folder: milliseconds}``.

    Raises:
        CheckpointError: a run has no usable checkpoint.
    """
    networks = [load_agent(run.folder).network for run in runs]
    timed = latencies(networks, example_frames(), max_seconds=_SECONDS_PER_NETWORK * len(networks))
    return {run.folder: 1e3 * one.median for run, one in zip(runs, timed, strict=True)}
