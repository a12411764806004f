"""Freed memory stays with the process."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from pathlib import Path

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


FLAGS = """
import re, sys
from pathlib import Path
import gsprune.cli.training  # with all that a training imports before it begins
from gsprune.cli.memory import keep_freed_memory
import torch
assert keep_freed_memory()
address = torch.ones(10 << 20).data_ptr() + (20 << 20)
inside = False
for line in Path("/proc/self/smaps").read_text().splitlines():
    if bounds := re.match(r"([0-9a-f]+)-([0-9a-f]+) ", line):
        inside = int(bounds[1], 16) <= address < int(bounds[2], 16)
    elif inside and line.startswith("VmFlags:"):
        print("hg" in line.split())
"""
THP = Path("/sys/kernel/mm/transparent_hugepage/enabled")


def page_faults(mode: str) -> int:
    environment = {name: value for name, value in os.environ.items() if name != "THP_MEM_ALLOC_ENABLE"}
    command = [sys.executable, "-c", PROGRAM, mode]
    result = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    return int(result.stdout)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="a setting of glibc")
def test_a_tensor_as_large_as_the_last_one_costs_no_page_faults() -> None:
    assert page_faults("keep") < 1000
    assert page_faults("default") > 10_000  # some kernels map several pages at a fault


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="a setting of glibc")
@pytest.mark.skipif(not THP.exists(), reason="a kernel without huge pages")
@pytest.mark.parametrize(("users", "answer"), [(None, "True"), ("0", "False")])
def test_large_tensors_ask_for_huge_pages_unless_the_user_forbids_it(
    monkeypatch: pytest.MonkeyPatch, users: str | None, answer: str
) -> None:
    if users is None:
        monkeypatch.delenv("THP_MEM_ALLOC_ENABLE", raising=False)
    else:
        monkeypatch.setenv("THP_MEM_ALLOC_ENABLE", users)
    result = subprocess.run([sys.executable, "-c", FLAGS], capture_output=True, text=True, check=True)
    assert result.stdout.split() == [answer]
