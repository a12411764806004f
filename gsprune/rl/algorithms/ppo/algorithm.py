"""PPO as an entry of the registry."""

from __future__ import annotations

from gsprune.rl.algorithms.algorithm import Algorithm
from gsprune.rl.algorithms.ppo.actions import distribution_of, sampled_policy
from gsprune.rl.algorithms.ppo.agent import acting_part
from gsprune.rl.algorithms.ppo.config import PRESETS, PPOConfig
from gsprune.rl.algorithms.ppo.trainer import PPOTrainer

__all__ = ["PPO"]

PPO = Algorithm(
    name="ppo",
    config=PPOConfig,
    presets=PRESETS,
    trainer=PPOTrainer,
    acting_part=acting_part,
    output_name=lambda environment: distribution_of(environment.action_space).output,
    policy=lambda outputs, network, environment, generator, device: sampled_policy(
        distribution_of(environment.action_space), outputs, network, generator, device
    ),
    acts="sampled",
)
