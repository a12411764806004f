"""Slicing next to a busy core and right after an operation of torch: it may cost the core that is lost, no more.

Compare within the group: "busy core" must lie between "alone" and "alone, 1 thread", give or take a time slice of the
scheduler (no thread of ours waits for one that has no core), and "after a torch operation" must cost what "alone" costs
(no second set of OpenMP threads spins on the cores).
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
import torch
from cases import extra_info, four_tensors
from torch import Tensor

from gsprune.backends import CppBackend

NETWORK = "impala-8"


@contextmanager
def _busy_core() -> Iterator[None]:
    process = subprocess.Popen([sys.executable, "-c", "while True: pass"])
    try:
        yield
    finally:
        process.kill()
        process.wait()


def _nothing() -> None:
    return None


def _torch_operation() -> None:
    left = torch.ones(512, 512)
    torch.mm(left, left).exp_()


@pytest.mark.parametrize("situation", ["alone", "alone, 1 thread", "busy core", "after a torch operation"])
def test_slice_in_company(benchmark, situation: str) -> None:
    benchmark.group = f"company {NETWORK}"
    _, *arguments = four_tensors(NETWORK)
    backend = CppBackend(num_threads=1) if "1 thread" in situation else CppBackend()
    before: Callable[[], None] = _torch_operation if "torch" in situation else _nothing
    expected = CppBackend(num_threads=1).slice(*arguments)
    results: list[Tensor] = []

    def run() -> None:
        results[:] = backend.slice(*arguments)

    benchmark.extra_info.update(extra_info(NETWORK), situation=situation)
    if situation == "busy core":
        with _busy_core():
            benchmark.pedantic(run, setup=before, rounds=15, warmup_rounds=3)
    else:
        benchmark.pedantic(run, setup=before, rounds=15, warmup_rounds=3)
    assert all(torch.equal(got, right) for got, right in zip(results, expected, strict=True))
