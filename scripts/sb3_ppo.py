"""Stable-Baselines3's PPO on Procgen, as `compare_trainers.py` runs it: its trainer, our encoder and environments.

    pip install stable-baselines3==2.9.2
    python scripts/sb3_ppo.py --encoder impala --width 1 --num-envs 64 --num-steps 32 --num-minibatches 1 --steps 4096

Prints a line at the end of every iteration.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from gymnasium import spaces
from stable_baselines3 import PPO
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor
from stable_baselines3.common.vec_env import VecEnv, VecMonitor, VecNormalize
from torch import Tensor, nn

from gsprune.networks import build_encoder
from gsprune.rl.envs.procgen import EnvConfig, ProcgenVectorEnv
from gsprune.rl.envs.provider import EnvironmentRequest


class Games(VecEnv):
    """Procgen as Stable-Baselines3 wants its environments."""

    def __init__(self, envs: ProcgenVectorEnv) -> None:
        """Wrap `envs`."""
        self.envs = envs
        super().__init__(envs.num_envs, envs.single_observation_space, spaces.Discrete(15))

    def reset(self) -> npt.NDArray[np.uint8]:
        """The first frames."""
        return self.envs.reset()[0]

    def step_async(self, actions: npt.NDArray[Any]) -> None:
        """Remember the actions."""
        self.actions = actions

    def step_wait(self) -> tuple[npt.NDArray[Any], npt.NDArray[Any], npt.NDArray[Any], list[dict[str, Any]]]:
        """Act."""
        frames, rewards, ends, _, _ = self.envs.step(self.actions)
        return frames, rewards, ends, [{} for _ in range(self.num_envs)]

    def close(self) -> None:
        """Free the games."""
        self.envs.close()

    def get_attr(self, attr_name: str, indices: Any = None) -> list[Any]:
        """The same attribute for every environment."""
        return [getattr(self.envs, attr_name, None)] * self.num_envs

    def set_attr(self, attr_name: str, value: Any, indices: Any = None) -> None:
        """Nothing to set."""

    def env_method(self, method_name: str, *method_args: Any, indices: Any = None, **method_kwargs: Any) -> list[Any]:
        """Nothing to call."""
        return [None] * self.num_envs

    def env_is_wrapped(self, wrapper_class: Any, indices: Any = None) -> list[bool]:
        """Nothing is wrapped one by one."""
        return [False] * self.num_envs


class Encoder(BaseFeaturesExtractor):
    """Our encoder; it divides by 255 itself, so Stable-Baselines3 is told to leave frames as they are."""

    def __init__(self, observation_space: spaces.Box, encoder: str, width: float) -> None:
        """Build the encoder."""
        super().__init__(observation_space, 256)
        self.encoder: nn.Module = build_encoder(encoder, width)  # type: ignore[arg-type]

    def forward(self, frames: Tensor) -> Tensor:
        """Features of frames."""
        features: Tensor = self.encoder(frames)
        return features


class Marks(BaseCallback):
    """Prints a line when an iteration is over."""

    iterations = -1

    def _on_rollout_start(self) -> None:
        self.iterations += 1
        if self.iterations > 0:
            sys.stdout.write(f"iteration {self.iterations}\n")
            sys.stdout.flush()

    def _on_step(self) -> bool:
        return True


def main(argv: Sequence[str] | None = None) -> None:
    """Train."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--env-id", default="starpilot")
    parser.add_argument("--encoder", default="impala")
    parser.add_argument("--width", type=float, default=1)
    parser.add_argument("--num-envs", type=int, default=64)
    parser.add_argument("--num-steps", type=int, default=32)
    parser.add_argument("--num-minibatches", type=int, default=1)
    parser.add_argument("--steps", type=int, required=True)
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args(argv)
    torch.set_num_threads(args.threads)
    games = Games(ProcgenVectorEnv(EnvConfig.of(EnvironmentRequest(args.env_id, args.num_envs, seed=1)), args.threads))
    envs = VecNormalize(VecMonitor(games), norm_obs=False, clip_reward=10, gamma=0.99)
    model = PPO(
        "CnnPolicy",
        envs,
        learning_rate=5e-4,
        n_steps=args.num_steps,
        batch_size=args.num_envs * args.num_steps // args.num_minibatches,
        n_epochs=3,
        gae_lambda=0.95,
        ent_coef=0.01,
        device="cpu",
        policy_kwargs={
            "features_extractor_class": Encoder,
            "features_extractor_kwargs": {"encoder": args.encoder, "width": args.width},
            "net_arch": [],
            "normalize_images": False,
        },
    )
    # One rollout more than asked for begins when the last update is over: its mark.
    model.learn(args.steps + args.num_envs * args.num_steps, callback=Marks())


if __name__ == "__main__":
    main()
