"""scripts/gpu_check.py, which needs a GPU, takes all its paths in a dry run; gpu_host_part.py needs none."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="triton is not installed")
def test_the_dry_run_checks_times_and_writes_both_reports(tmp_path: Path) -> None:
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    environment["PYTHONPATH"] = str(ROOT / "scripts")
    command = [sys.executable, "scripts/gpu_check.py", "--dry-run", "--output", str(tmp_path)]
    run = subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stdout + run.stderr
    report = json.loads((tmp_path / "gpu_check.json").read_text())
    assert all(count > 0 for count in report["correctness"].values())
    timings = {timing["operation"]: timing for timing in report["timings"]}
    assert set(timings) >= {"score l1", "score taylor", "slice", "score l1, torch", "slice, torch", "prune_step"}
    assert all(timing["wall_us"] > 0 for timing in timings.values())
    page = (tmp_path / "gpu_check.md").read_text()
    assert all(f"| {operation} |" in page for operation in timings)


@pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="triton is not installed")
def test_the_hosts_part_is_told_of_every_network() -> None:
    command = [sys.executable, "scripts/gpu_host_part.py", "--repeats", "1"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "scripts")}
    run = subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stdout + run.stderr
    rows = [line.split("|")[1:5] for line in run.stdout.splitlines()[2:]]
    assert [row[0].strip() for row in rows] == ["impala-1", "impala-2", "impala-4", "impala-8", "resnet-50"]
    assert all(float(median) >= float(least) > 0 for *_, median, least in rows)
