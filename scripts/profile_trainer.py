"""Where the time of a trainer goes: the network, the environments, and everything else.

    python scripts/profile_trainer.py ppo --width 1 --iterations 3
    python scripts/profile_trainer.py dqn --width 1 --iterations 6

Counts CPU time of the process, with one thread for the network and one for the environments, so that other work on the
machine does not blur it. "The network" is its forwards and backwards with the loss, the clipping of gradients and
Adam's step; "everything else" is the trainer's overhead: sampling, buffers or replay, advantages, pruning.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch

from gsprune.rl.algorithms.dqn.config import PRESETS, DQNConfig
from gsprune.rl.algorithms.dqn.trainer import DQNTrainer
from gsprune.rl.algorithms.ppo.config import PPOConfig
from gsprune.rl.algorithms.ppo.trainer import PPOTrainer
from gsprune.rl.training.idle_options import without_idle
from gsprune.rl.training.run_folder import RunFolder

WARM_UP = {"ppo": 1, "dqn": 3}  # iterations; DQN's replay fills, then learning starts
NETWORK = {"ppo": ("_act", "_losses_of"), "dqn": ("_greedy", "_targets", "_loss")}
DQN_LOG_INTERVAL = 8


class Stopwatch:
    """CPU seconds by name, over calls of the functions it has wrapped."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = defaultdict(float)

    def wrap(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """`function`, timed."""

        def timed(*args: Any, **kwargs: Any) -> Any:
            started = time.process_time()
            result = function(*args, **kwargs)
            self.seconds[name] += time.process_time() - started
            return result

        return timed


def profile(algorithm: str, config: PPOConfig | DQNConfig) -> dict[str, float]:
    """CPU seconds per part, and "total", of a training after its first iterations."""
    watch = Stopwatch()
    with tempfile.TemporaryDirectory() as folder:
        run = RunFolder.create(Path(folder) / "run", algorithm, asdict(config))
        trainer: Any = (PPOTrainer if algorithm == "ppo" else DQNTrainer)(config, run, say=lambda line: None)  # type: ignore[arg-type]
        for name in NETWORK[algorithm]:
            setattr(trainer, name, watch.wrap("network", getattr(trainer, name)))
        trainer.optimizer.step = watch.wrap("network", trainer.optimizer.step)
        trainer.envs.step = watch.wrap("environments", trainer.envs.step)
        backward, clip = torch.Tensor.backward, torch.nn.utils.clip_grad_norm_
        torch.Tensor.backward = watch.wrap("network", backward)  # type: ignore[method-assign]
        torch.nn.utils.clip_grad_norm_ = watch.wrap("network", clip)  # type: ignore[assignment]
        try:
            iterations = iter(range(config.num_iterations - 1))
            trainer.train(should_stop=lambda: next(iterations) == WARM_UP[algorithm] - 1)
            watch.seconds.clear()
            started = time.process_time()
            trainer.train()
            watch.seconds["total"] = time.process_time() - started
        finally:
            torch.Tensor.backward, torch.nn.utils.clip_grad_norm_ = backward, clip  # type: ignore[method-assign]
            trainer.close()
            run.close()
    return dict(watch.seconds)


def configuration(args: argparse.Namespace) -> PPOConfig | DQNConfig:
    """The training to look at; its iterations are those asked for and the warm-up."""
    iterations = args.iterations + WARM_UP[args.algorithm]
    shared: dict[str, Any] = {
        "env_id": "starpilot",
        "encoder": args.encoder,
        "width": args.width,
        "pruning": args.pruning,
        "num_envs": args.num_envs,
        "torch_threads": 1,
        "env_threads": 1,
        "eval_interval_episodes": 0,
    }
    if args.algorithm == "ppo":
        steps = args.num_envs * args.num_steps
        return PPOConfig(**shared, num_steps=args.num_steps, total_timesteps=steps * iterations)
    steps = DQN_LOG_INTERVAL * args.num_envs
    config = replace(
        PRESETS["quick"],
        **shared,
        batch_size=args.batch_size,
        log_interval=DQN_LOG_INTERVAL,
        total_timesteps=iterations * steps,
        learning_starts=WARM_UP["dqn"] * steps // 2,
        prune_interval=8,
    )
    return without_idle(config, config)  # the values are not the user's


def main(argv: Sequence[str] | None = None) -> None:
    """Print one line per part."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    algorithms = parser.add_subparsers(dest="algorithm", required=True)
    for algorithm, iterations in (("ppo", 3), ("dqn", 6)):
        options = algorithms.add_parser(algorithm)
        options.add_argument("--encoder", default="impoola")
        options.add_argument("--width", type=float, default=1)
        options.add_argument("--pruning", default="group")
        options.add_argument("--num-envs", type=int, default=32)
        options.add_argument("--iterations", type=int, default=iterations)
    algorithms.choices["ppo"].add_argument("--num-steps", type=int, default=64)
    algorithms.choices["dqn"].add_argument("--batch-size", type=int, default=64)
    args = parser.parse_args(argv)
    config = configuration(args)
    seconds = profile(args.algorithm, config)
    total = seconds.pop("total")
    seconds["everything else"] = total - sum(seconds.values())
    steps = config.steps_per_iteration * args.iterations
    for name, value in seconds.items():
        sys.stdout.write(f"{name:<16} {value:8.2f} s {value / total:7.1%} {value / steps * 1e6:8.1f} us per step\n")
    sys.stdout.write(f"{'total':<16} {total:8.2f} s          {steps / total:8.0f} steps per CPU second\n")


if __name__ == "__main__":
    main()
