"""Timing on a machine with other processes.

If other processes need the same cores, the system interrupts calls, and the median depends on these processes more than
on the network. The system counts the interruptions, so the median of the uninterrupted calls can be taken.
"""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from gsprune.checks import counted

__all__ = ["Forward", "Latency", "forwards_in_turns", "torch_threads", "undisturbed_milliseconds"]

Forward = Callable[[], Any]
"""One forward of a network on its inputs."""

_MIN_CALLS = 10  # for a median, also of a slow network
_LONGEST_TURN = 10  # calls
_TURN_SECONDS = 0.1
_FAST_QUANTILE = 0.1


@dataclass(frozen=True, slots=True)
class Latency:
    """Durations of forwards.

    Attributes:
        seconds: (calls,) duration of every timed call.
        batch: examples per call.
        device: the network's device.
        threads: CPU threads of the engine.
        interrupted: (calls,) True for calls that the system interrupted; may be empty if there are none.
    """

    seconds: tuple[float, ...]
    batch: int
    device: str
    threads: int
    interrupted: tuple[bool, ...] = ()

    @property
    def median(self) -> float:
        """The median of all calls, in seconds."""
        return float(np.median(self.seconds))

    @property
    def p99(self) -> float:
        """The 99th percentile of all calls, in seconds; with fewer than 100 calls this is the slowest."""
        return float(np.quantile(self.seconds, 0.99, method="higher"))

    @property
    def undisturbed_calls(self) -> int:
        """The number of uninterrupted calls."""
        return len(self.seconds) - sum(self.interrupted)

    @property
    def is_quiet(self) -> bool:
        """True if at least ten calls were not interrupted."""
        return self.undisturbed_calls >= _MIN_CALLS

    @property
    def undisturbed(self) -> float:
        """The median of the uninterrupted calls, in seconds; with fewer than ten of them, the 0.1 quantile of all."""
        if not self.is_quiet:
            return float(np.quantile(self.seconds, _FAST_QUANTILE))
        if not self.interrupted:
            return self.median
        return float(np.median(np.array(self.seconds)[~np.array(self.interrupted)]))

    def __str__(self) -> str:
        return (
            f"median {self.median * 1e3:.3f} ms, p99 {self.p99 * 1e3:.3f} ms "
            f"({counted(len(self.seconds), 'call')}, batch {self.batch}, {self.device},"
            f" {counted(self.threads, 'thread')})"
        )


def forwards_in_turns(
    forwards: Sequence[Forward],
    threads: int,
    *,
    batch: int = 1,
    calls: int = 500,
    warmup: int = 10,
    max_seconds: float = 10.0,
    device: str = "cpu",
) -> list[Latency]:
    """Time several networks in turns, so that other load on the machine slows all of them alike.

    A fast network has several calls per turn, because deployed networks find their weights and code in the caches. The
    first call of such a turn is not timed.

    Args:
        forwards: one per network.
        threads: threads of PyTorch, >= 1.
        batch: examples per call, for the result.
        calls: timed calls of each network, >= 1.
        warmup: untimed calls of each network before the timed ones.
        max_seconds: time limit for all timed calls together; it does not stop the first ten calls of each network.
        device: the networks' device, for the result.

    Returns:
        one `Latency` per network.
    """
    found: list[list[tuple[float, bool]]] = [[] for _ in forwards]
    with torch_threads(threads):
        for forward in forwards:
            for _ in range(warmup):
                forward()
        in_a_row = _calls_per_turn(forwards, calls)
        began = time.perf_counter()
        for index in range(math.ceil(calls / in_a_row)):
            if len(found[0]) >= _MIN_CALLS and time.perf_counter() - began > max_seconds:
                break
            for turn in range(len(forwards)):
                which = (turn + index) % len(forwards)  # the order changes: no network always follows the same one
                if in_a_row > 1:
                    forwards[which]()
                found[which] += [_timed(forwards[which]) for _ in range(in_a_row)]
    results = []
    for each in found:
        seconds, interrupted = zip(*each[:calls], strict=True)
        results.append(Latency(seconds, batch, device, threads, interrupted))
    return results


def undisturbed_milliseconds(forward: Forward, threads: int, seconds: float = 0.5, patience: float = 4.0) -> float:
    """The median time of the uninterrupted calls.

    Args:
        forward: the network's forward.
        threads: threads of PyTorch, >= 1.
        seconds: duration of the measurement; at least ten calls are made.
        patience: additional seconds, used while fewer than ten calls were uninterrupted.
    """
    began = time.perf_counter()
    whole = Latency((), 1, "cpu", threads)
    while True:
        warmup = 0 if whole.seconds else 3
        (more,) = forwards_in_turns([forward], threads, calls=1_000_000, warmup=warmup, max_seconds=seconds)
        whole = replace(whole, seconds=whole.seconds + more.seconds, interrupted=whole.interrupted + more.interrupted)
        if whole.is_quiet or time.perf_counter() - began > seconds + patience:
            return 1e3 * whole.undisturbed


@contextmanager
def torch_threads(count: int) -> Iterator[None]:
    """A block in which PyTorch uses `count` threads on the CPU."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _calls_per_turn(forwards: Sequence[Forward], calls: int) -> int:
    """The number of timed calls per turn: 1 for a single network, or if one network is slow."""
    if len(forwards) == 1 or calls == 1:
        return 1
    slowest = max(_timed(forward)[0] for forward in forwards)
    return max(1, min(_LONGEST_TURN, calls, int(_TURN_SECONDS / max(slowest, 1e-9))))


def _timed(forward: Forward) -> tuple[float, bool]:
    """The seconds of one call, and True if the system interrupted it."""
    switches = _involuntary_switches()
    began = time.perf_counter()
    forward()
    seconds = time.perf_counter() - began
    return seconds, _involuntary_switches() != switches


def _involuntary_switches() -> int:
    """The number of involuntary context switches of this process; 0 on Windows, which does not count them."""
    if sys.platform == "win32":
        return 0
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_nivcsw
