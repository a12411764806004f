"""Steps per second of this PPO and of CleanRL's, with the same network, environments and batches, one after the other.

    pip install --no-deps --target /tmp/gym23 gym==0.23.1
    curl -o /tmp/ppo_procgen.py https://raw.githubusercontent.com/vwxyzjn/cleanrl/fe8d8a0/cleanrl/ppo_procgen.py
    python scripts/compare_cleanrl.py /tmp/ppo_procgen.py --gym /tmp/gym23

CleanRL's file is written for gym 0.23, which is put before the installed one for its process alone. Each trains twice,
for `--steps` and for twice as many; the difference leaves imports and start-up out. Both have one thread per process.
"""

from __future__ import annotations

import argparse
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Duration:
    """Seconds of a process on the wall and of the CPU."""

    wall: float
    cpu: float

    def __sub__(self, other: Duration) -> Duration:
        return Duration(self.wall - other.wall, self.cpu - other.cpu)


def timed(command: Sequence[str], folder: Path, python_path: str) -> Duration:
    """Run a command to its end.

    Raises:
        RuntimeError: it failed; the message has the end of its errors.
    """
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": python_path}
    before, started = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
    result = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    wall, after = time.monotonic() - started, resource.getrusage(resource.RUSAGE_CHILDREN)
    if result.returncode != 0:
        raise RuntimeError(f"{' '.join(command)} failed: {result.stderr[-1000:]}")
    return Duration(wall, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)


def main(argv: Sequence[str] | None = None) -> None:
    """Print one line per trainer and the ratios."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cleanrl", type=Path, help="CleanRL's ppo_procgen.py")
    parser.add_argument("--gym", default="", help="folder with gym 0.23")
    parser.add_argument("--steps", type=int, default=8192)
    parser.add_argument("--num-envs", type=int, default=32)
    parser.add_argument("--num-steps", type=int, default=64)
    parser.add_argument("--num-minibatches", type=int, default=4)
    args = parser.parse_args(argv)
    shared = ["--env-id", "starpilot", "--num-envs", str(args.num_envs), "--num-steps", str(args.num_steps)]
    shared += ["--num-minibatches", str(args.num_minibatches)]
    root = Path(__file__).resolve().parent.parent
    cleanrl = [sys.executable, str(args.cleanrl.resolve()), "--no-cuda", *shared]
    ours = [sys.executable, "-m", "gsprune.cli", "train", "ppo", *shared, "--encoder", "impala", "--width", "1"]
    ours += ["--pruning", "none", "--learning-rate", "5e-4", "--torch-threads", "1", "--env-threads", "1"]
    ours += ["--eval-episodes", "0", "--eval-interval-episodes", "0", "--device", "cpu"]
    marginal = {}
    for name, command, python_path in (("cleanrl", cleanrl, args.gym), ("gsprune", ours, str(root))):
        durations = []
        for steps in (args.steps, 2 * args.steps):
            with tempfile.TemporaryDirectory() as folder:
                durations.append(timed([*command, "--total-timesteps", str(steps)], Path(folder), python_path))
        marginal[name] = durations[1] - durations[0]
        rates = f"{args.steps / marginal[name].wall:8.1f} steps/s {args.steps / marginal[name].cpu:8.1f} per CPU second"
        sys.stdout.write(f"{name:<8} {rates}\n")
        sys.stdout.flush()
    wall = marginal["cleanrl"].wall / marginal["gsprune"].wall
    cpu = marginal["cleanrl"].cpu / marginal["gsprune"].cpu
    sys.stdout.write(f"gsprune is {wall:.2f} times as fast by the wall, {cpu:.2f} times by the CPU\n")


if __name__ == "__main__":
    main()
