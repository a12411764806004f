"""Steps per second of this PPO, of CleanRL's and of Stable-Baselines3's: same network, environments, batches, threads.

    pip install --no-deps --target /tmp/gym23 gym==0.23.1
    curl -o /tmp/ppo_procgen.py https://raw.githubusercontent.com/vwxyzjn/cleanrl/fe8d8a0/cleanrl/ppo_procgen.py
    python scripts/compare_trainers.py --cleanrl /tmp/ppo_procgen.py --gym /tmp/gym23 --sb3

All compute in float32 and train Impala, width 1, on starpilot. They take turns, `--rounds` times; of every run the
first iteration is left out, as it has what is done once. CleanRL's file is written for gym 0.23, which is put before
the installed one for its process alone. `--results FILE` keeps all times and adds to those that are there, so that
rounds can be spread over several calls.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
Times = dict[str, list[float]]


def seconds_by_lines(command: Sequence[str], mark: str, environment: Mapping[str, str]) -> list[float]:
    """Seconds per iteration of a trainer that prints a line with `mark` at the end of each; the first is left out.

    Raises:
        RuntimeError: it failed; the message has the end of what it said.
    """
    marks, said = [], []
    with tempfile.TemporaryDirectory() as folder:
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
        with subprocess.Popen(command, cwd=folder, env={**os.environ, **environment}, **pipes) as process:  # type: ignore[call-overload]
            for line in process.stdout:
                said.append(line)
                if mark in line:
                    marks.append(time.monotonic())
    if process.returncode != 0:
        raise RuntimeError(f"{' '.join(command)} failed: {''.join(said[-20:])}")
    return [after - before for before, after in pairwise(marks)]


def seconds_by_metrics(command: Sequence[str], environment: Mapping[str, str]) -> list[float]:
    """Seconds per iteration of ``gsprune train``, from its metrics; the first is left out."""
    with tempfile.TemporaryDirectory() as folder:
        run = Path(folder) / "run"
        command = [*command, "--run-dir", str(run)]
        variables = {**os.environ, **environment}
        result = subprocess.run(command, env=variables, capture_output=True, text=True, check=False)
        if result.returncode != 0:
            raise RuntimeError(f"{' '.join(command)} failed: {result.stderr[-1000:]}")
        rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    ends = [row["time/seconds"] for row in rows]
    return [after - before for before, after in pairwise(ends)]


def measure(trainer: str, args: argparse.Namespace) -> list[float]:
    """Seconds per iteration of one run of one trainer."""
    sizes = ["--num-envs", str(args.num_envs), "--num-steps", str(args.num_steps)]
    sizes += ["--num-minibatches", str(args.num_minibatches)]
    threads = str(args.threads)
    steps = str(args.num_envs * args.num_steps * (args.iterations + 1))
    environment = {"OMP_NUM_THREADS": threads, "PYTHONPATH": str(ROOT)}
    if trainer == "cleanrl":
        command = [sys.executable, "-u", str(args.cleanrl.resolve()), "--no-cuda", "--total-timesteps", steps, *sizes]
        return seconds_by_lines(command, "SPS:", {**environment, "PYTHONPATH": args.gym})
    if trainer == "sb3":
        command = [sys.executable, str(ROOT / "scripts" / "sb3_ppo.py"), "--steps", steps, "--threads", threads]
        return seconds_by_lines([*command, *sizes], "iteration", environment)
    command = [sys.executable, "-m", "gsprune.cli", "train", "ppo", "--total-timesteps", steps, *sizes]
    command += ["--env-id", "starpilot", "--encoder", "impala", "--width", "1", "--learning-rate", "5e-4"]
    command += ["--pruning", "none", "--workers", threads, "--env-threads", threads, "--device", "cpu"]
    command += ["--eval-episodes", "0", "--eval-interval-episodes", "0"]
    if trainer == "gsprune-bf16":
        command += ["--amp", "bf16"]
    return seconds_by_metrics(command, environment)


def report(times: Times, steps: int) -> None:
    """Print medians and ratios."""
    medians = {trainer: statistics.median(seconds) for trainer, seconds in times.items() if seconds}
    for trainer, median in medians.items():
        line = f"{trainer:<13} {steps / median:7.1f} steps/s (median of {len(times[trainer])} iterations, "
        line += f"{steps / max(times[trainer]):.1f} to {steps / min(times[trainer]):.1f})"
        if trainer in ("cleanrl", "sb3") and "gsprune" in medians:
            line += f"; gsprune is {median / medians['gsprune']:.2f} times as fast"
        sys.stdout.write(line + "\n")


def main(argv: Sequence[str] | None = None) -> None:
    """Print a line per trainer."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cleanrl", type=Path, help="CleanRL's ppo_procgen.py; left out if unset")
    parser.add_argument("--gym", default="", help="folder with gym 0.23")
    parser.add_argument("--sb3", action="store_true", help="compare with Stable-Baselines3")
    parser.add_argument("--bf16", action="store_true", help="add a row for this PPO in bfloat16")
    parser.add_argument("--num-envs", type=int, default=64)
    parser.add_argument("--num-steps", type=int, default=32)
    parser.add_argument("--num-minibatches", type=int, default=1)
    parser.add_argument("--iterations", type=int, default=1, help="that are counted, per run")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--results", type=Path, help="JSON file that keeps the times of all calls")
    args = parser.parse_args(argv)
    times: Times = {}
    if args.results is not None and args.results.exists():
        times = json.loads(args.results.read_text())
    wanted = {"gsprune": True, "gsprune-bf16": args.bf16, "cleanrl": args.cleanrl is not None, "sb3": args.sb3}
    for _ in range(args.rounds):
        for trainer in (trainer for trainer, is_wanted in wanted.items() if is_wanted):
            times.setdefault(trainer, []).extend(measure(trainer, args))
            if args.results is not None:
                args.results.write_text(json.dumps(times))
    report(times, args.num_envs * args.num_steps)


if __name__ == "__main__":
    main()
