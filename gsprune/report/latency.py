"""Latencies of the networks of many runs, timed side by side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from gsprune.engines.portable_call import portable_call
from gsprune.engines.registry import load
from gsprune.engines.timing import forwards_in_turns
from gsprune.networks import example_frames
from gsprune.report.record import RunRecord
from gsprune.rl.trained import load_agent

__all__ = ["measured_latencies"]

_SECONDS_PER_NETWORK = 2.0


def measured_latencies(runs: Sequence[RunRecord]) -> Mapping[Path, float]:
    """Milliseconds of one forward with one frame on one thread, per run folder, for its newest checkpoint.

    The measurement is that of a run's summary: networks are timed in turns, so that other load on the machine slows all
    of them alike, and the median is taken over the calls that the system did not interrupt.

    Args:
        runs: at least one.

    Returns:
        ``{run folder: milliseconds}``.

    Raises:
        CheckpointError: a run has no usable checkpoint.
    """
    agents = [load_agent(run.folder) for run in runs]
    calls = [
        portable_call(agent.network, example_frames(observation_shape=agent.environment.observation_shape))
        for agent in agents
    ]
    forwards = load("eager", calls)
    timings = forwards_in_turns(forwards, threads=1, max_seconds=_SECONDS_PER_NETWORK * len(runs))
    return {run.folder: 1e3 * timing.undisturbed for run, timing in zip(runs, timings, strict=True)}
