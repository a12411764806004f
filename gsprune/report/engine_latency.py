"""Latency of networks side by side: dense and pruned ones in inference engines, and those of many runs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import nn

from gsprune.checks import counted
from gsprune.engines import ENGINES, Latency
from gsprune.engines.portable_call import portable_call
from gsprune.engines.registry import get_engine, load
from gsprune.engines.timing import forwards_in_turns
from gsprune.networks import FRAME_SHAPE, ObservationShape, example_frames
from gsprune.report.record import RunRecord
from gsprune.report.table import UNKNOWN, Table
from gsprune.rl.trained import load_agent

__all__ = ["EngineLatency", "latency_table", "time_engines", "timed_again"]

_SECONDS_PER_RUN = 2.0


@dataclass(frozen=True, slots=True)
class EngineLatency:
    """The latency of one network in one engine.

    Attributes:
        network: label of the network.
        engine: name of the engine.
        latency: latency of the network.
        of_dense: ratio to the latency of the network to compare with, which was timed in turns with this one.
    """

    network: str
    engine: str
    latency: Latency
    of_dense: float | None


def time_engines(
    networks: Mapping[str, nn.Module],
    references: Mapping[str, str],
    engines: Sequence[str],
    threads: Sequence[int] = (1, 2),
    batches: Sequence[int] = (1, 256),
    seconds: float = 5.0,
    on_setting: Callable[[str], None] = lambda text: None,
    observation_shape: ObservationShape = FRAME_SHAPE,
) -> list[EngineLatency]:
    """Time policies on frames, all policies in turns in every setting.

    Args:
        networks: label -> network that takes frames (B, C, H, W) uint8.
        references: label -> label of the network to compare with, which may be the same.
        engines: names of engines.
        threads: numbers of threads.
        batches: frames per call.
        seconds: time limit per network and setting; at least ten calls are made.
        on_setting: called with the next setting in words, to show progress.
        observation_shape: (C, H, W) of the frames.

    Raises:
        ValueError: a number is below 1, there is nothing to time, or an engine is unknown.
        MissingExtraError: an engine is not installed.
    """
    for name, values in (("threads", threads), ("batches", batches)):
        if not values or min(values) < 1:
            raise ValueError(f"`{name}` must be numbers of at least 1, got {list(values)}")
    if not engines:
        raise ValueError(f"`engines` must name at least one of {', '.join(ENGINES)}; got none")
    for engine in engines:
        get_engine(engine)
    rows: list[EngineLatency] = []
    for batch in batches:
        frames = _frames(batch, observation_shape)
        calls = [portable_call(network, frames, input_names=["frames"]) for network in networks.values()]
        for engine in engines:
            for count in threads:
                on_setting(f"batch {batch}, {engine}, {counted(count, 'thread')}")
                forwards = load(engine, calls, count)
                timed = forwards_in_turns(forwards, count, batch=batch, max_seconds=seconds * len(forwards))
                latencies = dict(zip(networks, timed, strict=True))
                rows += [
                    EngineLatency(label, engine, latency, _ratio(latency, latencies[references[label]]))
                    for label, latency in latencies.items()
                ]
    return rows


def _ratio(own: Latency, other: Latency) -> float | None:
    """The ratio of the medians of undisturbed calls.

    If both networks have too few undisturbed calls (because calls are longer than the system's time slices), it is the
    ratio of the medians of all calls. If only one network has too few, there is no ratio.
    """
    if own.is_quiet != other.is_quiet:
        return None
    return own.undisturbed / other.undisturbed if own.is_quiet else own.median / other.median


def latency_table(rows: Sequence[EngineLatency]) -> Table:
    """The rows as a table."""
    headings = ("network", "batch", "engine", "threads", "median ms", "p99 ms", "undisturbed ms", "of dense", "calls")
    lines = tuple(
        (
            row.network,
            str(row.latency.batch),
            row.engine,
            str(row.latency.threads),
            f"{1e3 * row.latency.median:.3f}",
            f"{1e3 * row.latency.p99:.3f}",
            f"{1e3 * row.latency.undisturbed:.3f}" if row.latency.is_quiet else UNKNOWN,
            UNKNOWN if row.of_dense is None else f"{row.of_dense:.3f}",
            f"{row.latency.undisturbed_calls} of {len(row.latency.seconds)}",
        )
        for row in rows
    )
    note = (
        "All networks of a setting were called in turns. Undisturbed: the median of the calls that the system did not"
        " interrupt, if there are at least ten. The ratio to the dense network is the ratio of these medians; if"
        " neither network has one, it is the ratio of the medians of all calls."
    )
    return Table("Latency of one forward", headings, lines, note)


def timed_again(runs: Sequence[RunRecord]) -> list[RunRecord]:
    """The runs with new latencies of their newest checkpoints, and without those of their dense networks.

    The measurement is that of a run's summary: one frame, one thread, networks in turns, so that other load on the
    machine slows all of them alike. The median is taken over the calls that the system did not interrupt.

    Raises:
        CheckpointError: a run has no usable checkpoint.
    """
    agents = [load_agent(run.folder) for run in runs]
    calls = [
        portable_call(agent.network, example_frames(observation_shape=agent.environment.observation_shape))
        for agent in agents
    ]
    timings = forwards_in_turns(load("eager", calls), threads=1, max_seconds=_SECONDS_PER_RUN * len(runs))
    # A run measured its dense network at another time, so the two latencies would not be comparable.
    return [
        replace(run, latency_ms=1e3 * timing.undisturbed, dense_latency_ms=None)
        for run, timing in zip(runs, timings, strict=True)
    ]


def _frames(batch: int, observation_shape: ObservationShape) -> torch.Tensor:
    """(B, C, H, W) uint8 noise, channels-last in memory like the frames of environments."""
    channels, height, width = observation_shape
    noise = np.random.default_rng(0).integers(0, 256, (batch, height, width, channels), dtype=np.uint8)
    return torch.from_numpy(noise).permute(0, 3, 1, 2)
