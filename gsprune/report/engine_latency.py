"""Latency of networks in inference engines: dense and pruned, side by side."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from gsprune.checks import counted
from gsprune.engines import ENGINES, Latency
from gsprune.engines.portable_call import portable_call
from gsprune.engines.registry import get_engine, load
from gsprune.engines.timing import forwards_in_turns
from gsprune.networks import FRAME_SHAPE, ObservationShape
from gsprune.report.table import UNKNOWN, Table

__all__ = ["EngineLatency", "latency_table", "ratios", "time_engines"]


@dataclass(frozen=True, slots=True)
class EngineLatency:
    """The latency of one network in one engine.

    Attributes:
        network: label of the network.
        engine: name of the engine.
        latency: latency of the network.
        reference: label of the network to compare with, which was timed in turns with this one.
    """

    network: str
    engine: str
    latency: Latency
    reference: str


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
                latencies = forwards_in_turns(forwards, count, batch=batch, max_seconds=seconds * len(forwards))
                rows += [
                    EngineLatency(label, engine, latency, references[label])
                    for label, latency in zip(networks, latencies, strict=True)
                ]
    return rows


def ratios(rows: Sequence[EngineLatency]) -> list[float | None]:
    """For every row the ratio of its latency to its reference's latency in the same setting.

    It is the ratio of the medians of undisturbed calls. If both networks have too few undisturbed calls (because calls
    are longer than the system's time slices), it is the ratio of the medians of all calls. If only one network has too
    few, there is no ratio.
    """

    def setting(row: EngineLatency) -> tuple[str, int, int]:
        return row.engine, row.latency.threads, row.latency.batch

    latencies = {(row.network, *setting(row)): row.latency for row in rows}
    found: list[float | None] = []
    for row in rows:
        own, other = row.latency, latencies[(row.reference, *setting(row))]
        if own.is_quiet != other.is_quiet:
            found.append(None)
        else:
            found.append(own.undisturbed / other.undisturbed if own.is_quiet else own.median / other.median)
    return found


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
            UNKNOWN if ratio is None else f"{ratio:.3f}",
            f"{row.latency.undisturbed_calls} of {len(row.latency.seconds)}",
        )
        for row, ratio in zip(rows, ratios(rows), strict=True)
    )
    note = (
        "All networks of a setting were called in turns. Undisturbed: the median of the calls that the system did not"
        " interrupt, if there are at least ten. The ratio to the dense network is the ratio of these medians; if"
        " neither network has one, it is the ratio of the medians of all calls."
    )
    return Table("Latency of one forward", headings, lines, note)


def _frames(batch: int, observation_shape: ObservationShape) -> torch.Tensor:
    """(B, C, H, W) uint8 noise, channels-last in memory like the frames of environments."""
    channels, height, width = observation_shape
    noise = np.random.default_rng(0).integers(0, 256, (batch, height, width, channels), dtype=np.uint8)
    return torch.from_numpy(noise).permute(0, 3, 1, 2)
