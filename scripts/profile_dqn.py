"""Where the time of DQN goes: the network, the environments, and everything else.

    python scripts/profile_dqn.py --width 1 --iterations 6

Counts CPU time as `profile_ppo.py` does. "Everything else" is the trainer's overhead: the replay, exploration, pruning.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path

import torch
from profile_ppo import Stopwatch

from gsprune.rl.dqn import DQNTrainer
from gsprune.rl.dqn_config import PRESETS, DQNConfig
from gsprune.rl.run import RunFolder

WARM_UP = 3  # iterations, in which the replay fills and learning starts


def profile(config: DQNConfig) -> dict[str, float]:
    """CPU seconds per part, and "total", of a training after its first iterations."""
    watch = Stopwatch()
    with tempfile.TemporaryDirectory() as folder:
        run = RunFolder.create(Path(folder) / "run", "dqn", asdict(config))
        trainer = DQNTrainer(config, run, say=lambda line: None)
        trainer._greedy = watch.wrap("network", trainer._greedy)  # type: ignore[assignment]
        trainer._targets = watch.wrap("network", trainer._targets)  # type: ignore[assignment]
        trainer._loss = watch.wrap("network", trainer._loss)  # type: ignore[assignment]
        trainer.optimizer.step = watch.wrap("network", trainer.optimizer.step)  # type: ignore[method-assign]
        trainer.envs.step = watch.wrap("environments", trainer.envs.step)  # type: ignore[method-assign]
        iterate = watch.wrap("total", trainer._iterate)
        backward, clip = torch.Tensor.backward, torch.nn.utils.clip_grad_norm_
        torch.Tensor.backward = watch.wrap("network", backward)  # type: ignore[method-assign]
        torch.nn.utils.clip_grad_norm_ = watch.wrap("network", clip)  # type: ignore[assignment]
        try:
            for _ in range(WARM_UP):
                iterate()
            watch.seconds.clear()
            for _ in range(config.num_iterations - WARM_UP):
                iterate()
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
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--iterations", type=int, default=6)
    args = parser.parse_args(argv)
    iterations = args.iterations + WARM_UP
    log_interval = 8
    config = replace(
        PRESETS["quick"],
        encoder=args.encoder,
        width=args.width,
        pruning=args.pruning,
        num_envs=args.num_envs,
        batch_size=args.batch_size,
        log_interval=log_interval,
        total_timesteps=iterations * log_interval * args.num_envs,
        learning_starts=WARM_UP * log_interval * args.num_envs // 2,
        prune_interval=8,
        torch_threads=1,
        env_threads=1,
    )
    seconds = profile(config)
    total = seconds.pop("total")
    seconds["everything else"] = total - sum(seconds.values())
    steps = args.iterations * config.steps_per_iteration
    for name, value in seconds.items():
        sys.stdout.write(f"{name:<16} {value:8.2f} s {value / total:7.1%} {value / steps * 1e6:8.1f} us per step\n")
    sys.stdout.write(f"{'total':<16} {total:8.2f} s          {steps / total:8.0f} steps per CPU second\n")


if __name__ == "__main__":
    main()
