"""DQN as an entry of the registry."""

from __future__ import annotations

from gsprune.rl.algorithms.algorithm import Algorithm
from gsprune.rl.algorithms.dqn.config import PRESETS, DQNConfig
from gsprune.rl.algorithms.dqn.trainer import DQNTrainer
from gsprune.rl.evaluation.episodes import greedy_policy

__all__ = ["DQN"]

DQN = Algorithm(
    name="dqn",
    config=DQNConfig,
    presets=PRESETS,
    trainer=DQNTrainer,
    acting_part=lambda network: network,
    output_name=lambda environment: "q_values",
    policy=lambda outputs, network, environment, generator, device: greedy_policy(outputs, device),
    acts="greedy",
)
