"""The least that scoring and slicing can cost on this machine: reading and copying as much memory."""

from __future__ import annotations

import ctypes
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path

import pytest
import torch

_EXTRA = 4096


@cache
def _library() -> ctypes.CDLL:
    compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if compiler is None:
        pytest.skip("no C compiler for the floor")
    folder = Path(tempfile.mkdtemp(prefix="gsprune-floor-"))
    target = folder / "floor.so"
    source = Path(__file__).with_name("floor.c")
    subprocess.run([compiler, "-O3", "-march=native", "-shared", "-fPIC", str(source), "-o", str(target)], check=True)
    library = ctypes.CDLL(str(target))
    library.read_all.restype = ctypes.c_uint64
    shutil.rmtree(folder)
    return library


def _buffer(num_bytes: int) -> tuple[torch.Tensor, int]:
    """Touched memory and its first address on a line."""
    memory = torch.ones(num_bytes + _EXTRA, dtype=torch.uint8)
    return memory, (memory.data_ptr() + 63) // 64 * 64


class Floor:
    """Reads `read_bytes` and copies `copied_bytes`, by the faster of one thread and two, cached and streaming.

    Args:
        read_bytes: how much is read once.
        copied_bytes: how much is copied.
    """

    def __init__(self, read_bytes: int, copied_bytes: int) -> None:
        self._library = _library()
        self._sizes = (read_bytes, copied_bytes)
        self._source, self._from = _buffer(max(self._sizes))
        self._target, self._to = _buffer(copied_bytes)
        self._other = ThreadPoolExecutor(1)

    def ways(self) -> list[Callable[[], None]]:
        """Each does the whole work once, on as many threads as torch may use, at most two."""
        splits = (False, True) if torch.get_num_threads() > 1 else (False,)
        return [lambda s=split, c=copy: self._run(s, c) for split in splits for copy in ("copy_all", "copy_cached")]

    def _run(self, split: bool, copy: str) -> None:
        shares = [(0.0, 0.5), (0.5, 1.0)] if split else [(0.0, 1.0)]
        waiting = [self._other.submit(self._work, share, copy) for share in shares[1:]]
        self._work(shares[0], copy)
        for future in waiting:
            future.result()

    def _work(self, share: tuple[float, float], copy: str) -> None:
        for function, size in (("read_all", self._sizes[0]), (copy, self._sizes[1])):
            begin, end = (int(part * size) // 64 * 64 for part in share)
            addresses = [self._from + begin] if function == "read_all" else [self._to + begin, self._from + begin]
            if end > begin:
                getattr(self._library, function)(*map(ctypes.c_void_p, addresses), ctypes.c_int64(end - begin))

    def best(self) -> Callable[[], None]:
        """The fastest way on this machine at this size."""
        return min(self.ways(), key=lambda way: min(seconds_of(way, 7)))


def seconds_of(call: Callable[[], None], rounds: int) -> list[float]:
    """How long each of some calls takes."""
    seconds = []
    for _ in range(rounds):
        started = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - started)
    return seconds
