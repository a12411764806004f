"""Where the time of PPO goes: the network, the environments, and everything else.

    python scripts/profile_ppo.py --width 1 --iterations 3

Counts CPU time of the process, with one thread for the network and none for the environments, so that other work on the
machine does not blur it. "The network" is its forwards and backwards with the loss, the clipping of gradients and
Adam's step; "everything else" is the trainer's overhead: sampling, buffers, minibatches, advantages, pruning, logs.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from gsprune.rl.ppo import PPOTrainer
from gsprune.rl.ppo_config import PPOConfig
from gsprune.rl.run import RunFolder


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


def profile(config: PPOConfig) -> dict[str, float]:
    """CPU seconds per part, and "total", of a training after its first iteration."""
    watch = Stopwatch()
    with tempfile.TemporaryDirectory() as folder:
        run = RunFolder.create(Path(folder) / "run", "ppo", asdict(config))
        trainer = PPOTrainer(config, run, say=lambda line: None)
        trainer._act = watch.wrap("network", trainer._act)  # type: ignore[assignment]
        trainer._losses_of = watch.wrap("network", trainer._losses_of)  # type: ignore[assignment]
        trainer.optimizer.step = watch.wrap("network", trainer.optimizer.step)  # type: ignore[method-assign]
        trainer.envs.step = watch.wrap("environments", trainer.envs.step)  # type: ignore[method-assign]
        backward, clip = torch.Tensor.backward, torch.nn.utils.clip_grad_norm_
        torch.Tensor.backward = watch.wrap("network", backward)  # type: ignore[method-assign]
        torch.nn.utils.clip_grad_norm_ = watch.wrap("network", clip)  # type: ignore[assignment]
        try:
            trainer.train(should_stop=lambda: True)
            watch.seconds.clear()
            started = time.process_time()
            trainer.train()
            watch.seconds["total"] = time.process_time() - started
        finally:
            torch.Tensor.backward, torch.nn.utils.clip_grad_norm_ = backward, clip  # type: ignore[method-assign]
            trainer.close()
            run.close()
    return dict(watch.seconds)


def main(argv: Sequence[str] | None = None) -> None:
    """Print one line per part."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--encoder", default="impoola")
    parser.add_argument("--width", type=float, default=1)
    parser.add_argument("--pruning", default="group")
    parser.add_argument("--num-envs", type=int, default=32)
    parser.add_argument("--num-steps", type=int, default=64)
    parser.add_argument("--iterations", type=int, default=3)
    args = parser.parse_args(argv)
    config = PPOConfig(
        env_id="starpilot",
        encoder=args.encoder,
        width=args.width,
        pruning=args.pruning,
        num_envs=args.num_envs,
        num_steps=args.num_steps,
        total_timesteps=args.num_envs * args.num_steps * (args.iterations + 1),
        torch_threads=1,
        env_threads=1,
        eval_interval_episodes=0,
    )
    seconds = profile(config)
    total = seconds.pop("total")
    seconds["everything else"] = total - sum(seconds.values())
    steps = config.batch_size * args.iterations
    for name, value in seconds.items():
        sys.stdout.write(f"{name:<16} {value:8.2f} s {value / total:7.1%} {value / steps * 1e6:8.1f} us per step\n")
    sys.stdout.write(f"{'total':<16} {total:8.2f} s          {steps / total:8.0f} steps per CPU second\n")


if __name__ == "__main__":
    main()
