"""A training on two processes, as torchrun starts it: one is killed, the run goes on on one."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from gsprune.cli import main
from gsprune.rl.training.metrics import read_metrics
from gsprune.sweep.lifeline import tie_to_parent

OPTIONS = [
    "--preset", "quick", "--total-timesteps", "256", "--num-envs", "4", "--num-steps", "8", "--num-minibatches", "2",
    "--torch-threads", "1", "--env-threads", "1", "--eval-episodes", "2", "--checkpoint-minutes", "0",
]  # fmt: skip


def workers_of(launcher: int) -> list[int]:
    """Process numbers of the ranks, by their parent."""
    tasks = Path(f"/proc/{launcher}/task").iterdir()
    return [int(pid) for task in tasks for pid in (task / "children").read_text().split()]


def tied(command: list[str]) -> list[str]:
    """The command, killed when the process that starts it ends: a suite that is killed leaves no training behind."""
    lifeline = tie_to_parent(command)[: -len(command) - 1]  # without this process's number
    return ["sh", "-c", f'exec {shlex.join(lifeline)} $PPID "$@"', "sh", *command]


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="finds the ranks by /proc")
def test_a_killed_rank_ends_the_run_and_one_process_goes_on_with_it(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "--no-python"]
    training = [sys.executable, "-m", "gsprune.cli", "train", "ppo", *OPTIONS, "--run-dir", str(folder)]
    command = tied([*torchrun, *tied(training)])
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment
    ) as process:
        assert process.stdout is not None
        lines = []
        for line in process.stdout:
            lines.append(line)
            if line.startswith("step"):
                break
        assert "2 processes, 4 environments together\n" in lines
        os.kill(workers_of(process.pid)[1], signal.SIGKILL)
        killed = time.monotonic()
        rest = process.stdout.read()
        assert process.wait() != 0
        assert time.monotonic() - killed < 240  # without notice it would be 30 minutes
    assert "another process of this training has ended or does not answer" in rest
    assert (
        f"resume from the last checkpoint, on any number of processes, with: gsprune train ppo --resume {folder}"
        in rest
    )
    assert 0 < len(read_metrics(folder)) < 8
    assert main(["train", "ppo", "--resume", str(folder)]) == 0
    assert [row["step"] for row in read_metrics(folder)] == list(range(32, 257, 32))
