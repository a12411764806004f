"""How fast networks are in the engines that run them: dense and pruned, side by side."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import torch
from torch import nn

from gsprune.checks import counted
from gsprune.engines.engine import prepared
from gsprune.engines.onnx_file import portable_call, write_onnx
from gsprune.engines.session import open_session
from gsprune.engines.timing import Forward, Timing, forwards_in_turns, torch_threads
from gsprune.exporting.quantize import quantize
from gsprune.networks import FRAME_SHAPE, ObservationShape, example_frames
from gsprune.report.table import UNKNOWN, Table

__all__ = ["ENGINES", "Engine", "EngineTiming", "latency_table", "ratios", "time_engines"]

Engine = Literal["eager", "compiled", "onnxruntime", "onnxruntime-int8"]
ENGINES: tuple[Engine, ...] = ("eager", "compiled", "onnxruntime")

_CALIBRATION_FRAMES = 32


@dataclass(frozen=True, slots=True)
class EngineTiming:
    """One line of the table.

    Attributes:
        network: label.
        engine: that ran it.
        threads: of the engine.
        batch: frames per call.
        timing: of the calls.
        reference: label of the network it is compared with, measured in turns with it.
    """

    network: str
    engine: Engine
    threads: int
    batch: int
    timing: Timing
    reference: str


def time_engines(
    networks: Mapping[str, nn.Module],
    references: Mapping[str, str],
    engines: Sequence[Engine] = ENGINES,
    threads: Sequence[int] = (1, 2),
    batches: Sequence[int] = (1, 256),
    seconds: float = 5.0,
    on_setting: Callable[[str], None] | None = None,
    observation_shape: ObservationShape = FRAME_SHAPE,
) -> list[EngineTiming]:
    """Time policies of frames, all of them in turns in every setting.

    Args:
        networks: label -> network of frames (B, C, H, W) uint8.
        references: label -> label of the network that it is compared with, itself where there is none.
        engines: which.
        threads: each engine's threads.
        batches: frames per call.
        seconds: per network and setting, at most (but ten calls).
        on_setting: called with what is timed next, to show progress.
        observation_shape: (C, H, W) of the frames.

    Raises:
        ValueError: a number below 1, or nothing to be timed.
        MissingExtraError: an engine is not installed.
    """
    for name, values in (("threads", threads), ("batches", batches)):
        if not values or min(values) < 1:
            raise ValueError(f"`{name}` must be numbers of at least 1, got {list(values)}")
    if not engines:
        raise ValueError(f"`engines` must name at least one of {', '.join(get_args(Engine))}; got none")
    say = on_setting or (lambda text: None)
    rows: list[EngineTiming] = []
    with tempfile.TemporaryDirectory() as folder:
        files = _Files(Path(folder), networks, say, observation_shape)
        for batch in batches:
            for engine in engines:
                for count in threads:
                    say(f"batch {batch}, {engine}, {counted(count, 'thread')}")
                    with torch_threads(count):
                        runs = _prepared(files, engine, batch, count)
                    timings = forwards_in_turns(runs, count, max_seconds=seconds * len(runs))
                    rows += [
                        EngineTiming(label, engine, count, batch, timing, references[label])
                        for label, timing in zip(networks, timings, strict=True)
                    ]
    return rows


def ratios(rows: Sequence[EngineTiming]) -> list[float | None]:
    """Per row its time over that of its reference in the same setting.

    By the medians of undisturbed calls; where both networks have too few of them (calls longer than the system's time
    slices), by those of all calls; None where one has and the other has not, which cannot be compared.
    """
    timings = {(row.network, row.engine, row.threads, row.batch): row.timing for row in rows}
    found: list[float | None] = []
    for row in rows:
        own, other = row.timing, timings[row.reference, row.engine, row.threads, row.batch]
        if own.is_quiet != other.is_quiet:
            found.append(None)
        elif own.is_quiet:
            found.append(own.undisturbed_ms / other.undisturbed_ms)
        else:
            found.append(own.median_ms / other.median_ms)
    return found


def latency_table(rows: Sequence[EngineTiming]) -> Table:
    """The rows as a table."""
    headings = ("network", "batch", "engine", "threads", "median ms", "p99 ms", "undisturbed ms", "of dense", "calls")
    lines = tuple(
        (
            row.network,
            str(row.batch),
            row.engine,
            str(row.threads),
            f"{row.timing.median_ms:.3f}",
            f"{row.timing.p99_ms:.3f}",
            f"{row.timing.undisturbed_ms:.3f}" if row.timing.is_quiet else UNKNOWN,
            UNKNOWN if ratio is None else f"{ratio:.3f}",
            f"{row.timing.undisturbed} of {len(row.timing.seconds)}",
        )
        for row, ratio in zip(rows, ratios(rows), strict=True)
    )
    note = (
        "All networks of a setting were called in turns. Undisturbed: the median of the calls during which the system"
        " took no core away from the process, where these are at least ten. The ratio to the dense network is of these"
        " medians; where neither network has one, of those of all calls."
    )
    return Table("Latency of one forward", headings, lines, note)


class _Files:
    """The networks, and their ONNX files, each made when first asked for."""

    def __init__(
        self,
        folder: Path,
        networks: Mapping[str, nn.Module],
        say: Callable[[str], None],
        observation_shape: ObservationShape,
    ) -> None:
        self.networks = dict(networks)
        self.observation_shape = observation_shape
        self._folder = folder
        self._say = say

    def onnx(self, label: str) -> Path:
        """The file of a network."""
        path = self._path(label, ".onnx")
        if not path.exists():
            self._say(f"exporting {label}")
            example = example_frames(2, observation_shape=self.observation_shape)
            call = portable_call(self.networks[label], example, None, ["frames"])
            write_onnx(call, path)
        return path

    def int8(self, label: str) -> Path:
        """The file of a network in 8-bit integers; ranges are those of noise, which is no matter to the clock."""
        path = self._path(label, ".int8.onnx")
        if not path.exists():
            shape = (_CALIBRATION_FRAMES, *self.observation_shape)
            noise = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
            quantize(self.onnx(label), path, [{"frames": noise}])
        return path

    def _path(self, label: str, suffix: str) -> Path:
        return self._folder / f"{list(self.networks).index(label)}{suffix}"


def _prepared(files: _Files, engine: Engine, batch: int, threads: int) -> list[Forward]:
    channels, height, width = files.observation_shape
    frames = np.random.default_rng(0).integers(0, 256, (batch, height, width, channels), dtype=np.uint8)
    frames = frames.transpose(0, 3, 1, 2)
    if engine in ("eager", "compiled"):
        torch.compiler.reset()  # so that compiled code of earlier settings does not count against dynamo's limit
        inputs = torch.from_numpy(frames)
        return [prepared(engine, network, inputs) for network in files.networks.values()]
    path_of = files.onnx if engine == "onnxruntime" else files.int8
    arrays = {"frames": np.ascontiguousarray(frames)}
    return [_session_run(path_of(label), threads, arrays) for label in files.networks]


def _session_run(path: Path, threads: int, arrays: Mapping[str, np.ndarray[Any, Any]]) -> Forward:
    session = open_session(path, threads)
    return lambda: session(arrays)
