"""The least that scoring and slicing can cost on this machine: reading and copying as much memory."""

from __future__ import annotations

import ctypes
import itertools
import mmap
import shutil
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable
from functools import cache, partial
from pathlib import Path

import pytest
import torch

_HUGE_PAGE = 2 << 20
_NUM_COPIES = 4  # of floor.c


@cache
def _library() -> ctypes.CDLL:
    compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if compiler is None:
        pytest.skip("no C compiler for the floor")
    folder = Path(tempfile.mkdtemp(prefix="gsprune-floor-"))
    target = folder / "floor.so"
    source = Path(__file__).with_name("floor.c")
    flags = ["-O3", "-march=native", "-shared", "-fPIC", "-pthread"]
    subprocess.run([compiler, *flags, str(source), "-o", str(target)], check=True)
    library = ctypes.CDLL(str(target))
    pointer, size = ctypes.c_void_p, ctypes.c_int64
    library.read_and_copy.argtypes = [pointer, pointer, size, size, ctypes.c_int, ctypes.c_int]
    library.read_and_copy.restype = None
    shutil.rmtree(folder)
    return library


class _Memory:
    """Touched memory on huge pages where the system gives them: reading it costs a third less than small pages."""

    def __init__(self, num_bytes: int) -> None:
        self._pages = mmap.mmap(-1, num_bytes + 2 * _HUGE_PAGE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        if hasattr(mmap, "MADV_HUGEPAGE"):
            self._pages.madvise(mmap.MADV_HUGEPAGE)
        begin = ctypes.addressof(ctypes.c_char.from_buffer(self._pages))
        self.address = (begin + _HUGE_PAGE - 1) // _HUGE_PAGE * _HUGE_PAGE
        ctypes.memset(self.address, 1, num_bytes)


class Floor:
    """Reads `read_bytes` and copies `copied_bytes`, by the fastest of several ways on one thread and on two.

    What a round finds in the caches is what a step finds there. The tensors that a step reads are those that the step
    before has written, and what it writes takes the place of those that the step before has read: two buffers change
    places. Where the same tensors are sliced again and again, their slices are alive until the next ones replace them:
    two targets take turns.

    Args:
        read_bytes: how much is read once, of what is then copied.
        copied_bytes: how much is copied.
        is_chain: whether a round reads what the round before has written, else the same memory in every round.
    """

    def __init__(self, read_bytes: int, copied_bytes: int, *, is_chain: bool = True) -> None:
        self._library = _library()
        self._sizes = (read_bytes, copied_bytes)
        sizes = [max(self._sizes), max(self._sizes) if is_chain and copied_bytes else copied_bytes]
        if not is_chain:
            sizes.append(copied_bytes)
        self._memory = [_Memory(size) for size in sizes]
        first, second, *third = (memory.address for memory in self._memory)
        if not copied_bytes:
            rounds = [(second, first)]
        elif is_chain:
            rounds = [(second, first), (first, second)]
        else:
            rounds = [(second, first), (third[0], first)]
        self._rounds = itertools.cycle(rounds)

    def ways(self) -> list[Callable[[], None]]:
        """Each does the whole work once, on as many threads as torch may use, at most two."""
        threads = range(1, 1 + min(2, torch.get_num_threads()))
        copies = range(_NUM_COPIES if self._sizes[1] else 1)
        return [partial(self._run, copy, number) for number in threads for copy in copies]

    def _run(self, copy: int, num_threads: int) -> None:
        self._library.read_and_copy(*next(self._rounds), *self._sizes, copy, num_threads)

    def best(self, rounds: int = 7) -> Callable[[], None]:
        """The fastest way on this machine at this size."""
        return min(self.ways(), key=lambda way: statistics.median(seconds_of(way, rounds)))


def seconds_of(call: Callable[[], None], rounds: int) -> list[float]:
    """How long each of some calls takes."""
    seconds = []
    for _ in range(rounds):
        started = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - started)
    return seconds
