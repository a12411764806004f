"""Joining and leaving the processes of a training."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="finds threads by /proc")
def test_no_thread_of_the_group_outlives_it(tmp_path: Path) -> None:
    # One that drops a tensor while the interpreter ends aborts the process, after a training that went well.
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--standalone"]
    script = Path(__file__).parents[1] / "support" / "leave_group.py"
    done = subprocess.run([*command, str(script)], capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("left: []") == 2
