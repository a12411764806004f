"""scripts/gpu_check.py, which needs a GPU, takes all its paths in a dry run."""

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
