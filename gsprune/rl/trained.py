"""Loads the agent of a run's newest checkpoint, even of a run in progress."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

import gsprune
from gsprune.errors import CheckpointError
from gsprune.rl.algorithms.algorithm import Algorithm
from gsprune.rl.algorithms.registry import algorithm_of
from gsprune.rl.envs.provider import EnvironmentDescription, EnvironmentRequest
from gsprune.rl.envs.registry import describe
from gsprune.rl.evaluation.episodes import Policy
from gsprune.rl.networks import configured_network
from gsprune.rl.training.checkpoints import MODEL_FILE, latest_checkpoint
from gsprune.rl.training.run_folder import read_config

__all__ = ["TrainedAgent", "dense_network", "load_agent"]

_ATTEMPTS = 5


@dataclass(frozen=True)
class TrainedAgent:
    """The agent of a checkpoint.

    Attributes:
        network: the network in eval mode, on `device`, in the memory format of the training.
        config: the run's options.
        environment: the description of its environment.
        checkpoint: the folder of the checkpoint.
        step: environment steps of its training.
        device: the network's device.
        complaints: one line for every newer checkpoint that is damaged.
    """

    network: nn.Module
    config: dict[str, Any]
    environment: EnvironmentDescription
    checkpoint: Path
    step: int
    device: torch.device
    complaints: tuple[str, ...]

    @property
    def acts(self) -> str:
        """The choice of actions in evaluations: "sampled" for PPO, "greedy" for DQN."""
        return self.algorithm.acts

    @property
    def algorithm(self) -> Algorithm:
        """The algorithm of the training."""
        return algorithm_of(self.config["algorithm"])

    @property
    def acting_part(self) -> nn.Module:
        """The part of the network that acts: observations -> logits, means or Q values."""
        return self.algorithm.acting_part(self.network)

    def build_dense(self) -> nn.Module:
        """A dense network with new random weights."""
        return configured_network(self.config, self.environment, self.algorithm.trainer.build_network)

    def policy(self, generator: torch.Generator) -> Policy:
        """The policy for evaluations. A greedy policy ignores the generator."""
        return self.algorithm.policy(self.acting_part, self.network, self.environment, generator, self.device)


def dense_network(options: Mapping[str, Any]) -> tuple[nn.Module, EnvironmentDescription]:
    """The dense network of a run's options with new random weights, and the description of its environment."""
    environment = describe(EnvironmentRequest.of_run(options))
    build = algorithm_of(options["algorithm"]).trainer.build_network
    return configured_network(options, environment, build), environment


def load_agent(folder: str | Path, device: torch.device | str = "cpu") -> TrainedAgent:
    """Read the newest undamaged checkpoint of a run, without a lock.

    A run in progress deletes old checkpoints. If a checkpoint is deleted while it is read, the read is repeated.

    Raises:
        ValueError: `folder` is no run folder.
        CheckpointError: there is no checkpoint, or all are damaged.
    """
    folder = Path(folder)
    config = read_config(folder)
    for _ in range(_ATTEMPTS - 1):
        try:
            return _load(folder, config, torch.device(device))
        except (CheckpointError, OSError):
            continue
    return _load(folder, config, torch.device(device))


def _load(folder: Path, config: dict[str, Any], device: torch.device) -> TrainedAgent:
    checkpoint, complaints = latest_checkpoint(folder / "checkpoints", [MODEL_FILE])
    network, environment = dense_network(config)
    gsprune.load(checkpoint / MODEL_FILE, into=network)
    if config.get("channels_last", True):
        network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    step = int(checkpoint.name.removeprefix("step-"))
    return TrainedAgent(network.to(device).eval(), config, environment, checkpoint, step, device, tuple(complaints))
