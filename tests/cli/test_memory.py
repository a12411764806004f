"""Freed memory stays with the process."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

PROGRAM = """
import resource, sys
from gsprune.cli.memory import keep_freed_memory
import torch
if sys.argv[1] == "keep":
    assert keep_freed_memory()
def touch():
    for _ in range(20):
        torch.ones(10 << 20)  # 40 MB, 10240 pages
touch()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
touch()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def page_faults(mode: str) -> int:
    result = subprocess.run([sys.executable, "-c", PROGRAM, mode], capture_output=True, text=True, check=True)
    return int(result.stdout)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="a setting of glibc")
def test_a_tensor_as_large_as_the_last_one_costs_no_page_faults() -> None:
    assert page_faults("keep") < 1000
    assert page_faults("default") > 100_000
