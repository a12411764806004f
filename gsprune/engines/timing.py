"""Timing on a machine that others use, too.

Where other processes want the same cores, the system takes a core away in the midst of a call, and the median says more
of the neighbours than of the network. The system counts how often it did so; calls without an interruption are what
the network takes by itself.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from gsprune.engines.latency import in_turns

__all__ = ["Forward", "Timing", "forwards_in_turns", "torch_threads", "undisturbed_milliseconds"]

Forward = Callable[[], Any]
"""One forward of a prepared network on its inputs."""

_ENOUGH = 10
_QUIET_QUANTILE = 0.1


@dataclass(frozen=True, slots=True)
class Timing:
    """How long forwards took.

    Attributes:
        seconds: (calls,) of every call, in the order in which they were made.
        interrupted: (calls,) whether the system took a core away meanwhile; never where it does not count that.
    """

    seconds: tuple[float, ...]
    interrupted: tuple[bool, ...]

    @property
    def median_ms(self) -> float:
        """The middle of all calls."""
        return 1e3 * float(np.median(self.seconds))

    @property
    def p99_ms(self) -> float:
        """99 of 100 calls take at most so long; with fewer than 100 calls this is the slowest."""
        return 1e3 * float(np.quantile(self.seconds, 0.99, method="higher"))

    @property
    def undisturbed(self) -> int:
        """How many calls were not interrupted."""
        return self.interrupted.count(False)

    @property
    def is_quiet(self) -> bool:
        """Whether enough calls, ten, were not interrupted."""
        return self.undisturbed >= _ENOUGH

    @property
    def undisturbed_ms(self) -> float:
        """The median of the calls that were not interrupted; of fewer than ten the fastest tenth of all says more."""
        if self.is_quiet:
            quiet = [s for s, interrupted in zip(self.seconds, self.interrupted, strict=True) if not interrupted]
            return 1e3 * float(np.median(quiet))
        return 1e3 * float(np.quantile(self.seconds, _QUIET_QUANTILE))


def forwards_in_turns(
    runs: Sequence[Forward], threads: int, *, calls: int = 500, warmup: int = 10, max_seconds: float = 10.0
) -> list[Timing]:
    """Time several networks in turns, so that what else the machine does slows all of them alike.

    Args:
        runs: one per network.
        threads: of PyTorch, >= 1; other engines have their own.
        calls: of each, >= 1.
        warmup: calls of each before them.
        max_seconds: end earlier, but after at least ten calls, when they have taken so long in all.
    """
    clocks = [_Clock(run) for run in runs]
    with torch_threads(threads):
        taken = in_turns(clocks, calls, warmup, max_seconds)
    return [Timing(tuple(s for s, _ in each), tuple(i for _, i in each)) for each in taken]


def undisturbed_milliseconds(run: Forward, threads: int, seconds: float = 0.5, patience: float = 4.0) -> float:
    """The median time of the forwards that were not interrupted.

    Args:
        run: the forward.
        threads: of PyTorch, >= 1.
        seconds: how long to measure, but at least ten calls.
        patience: how much longer, while fewer than ten calls were left undisturbed.
    """
    seen: list[Timing] = []
    began = time.perf_counter()
    while True:
        seen += forwards_in_turns([run], threads, calls=1_000_000, warmup=0 if seen else 3, max_seconds=seconds)
        whole = Timing(tuple(s for t in seen for s in t.seconds), tuple(i for t in seen for i in t.interrupted))
        if whole.is_quiet or time.perf_counter() - began > seconds + patience:
            return whole.undisturbed_ms


@contextmanager
def torch_threads(count: int) -> Iterator[None]:
    """A block in which PyTorch uses `count` threads on the CPU."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


class _Clock:
    """Runs one forward per call: its seconds, and whether it was interrupted."""

    def __init__(self, run: Forward) -> None:
        self._run = run

    def __call__(self) -> tuple[float, bool]:
        switches = _involuntary_switches()
        began = time.perf_counter()
        self._run()
        seconds = time.perf_counter() - began
        return seconds, _involuntary_switches() != switches


def _involuntary_switches() -> int:
    """How often the system has taken a core away from this process; 0 where it does not say."""
    if sys.platform == "win32":
        return 0
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_nivcsw
