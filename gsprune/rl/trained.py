"""The agent of a run's newest checkpoint, also while the run goes on."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

import gsprune
from gsprune.errors import CheckpointError
from gsprune.rl.algorithms.algorithm import Algorithm
from gsprune.rl.algorithms.registry import algorithm_of
from gsprune.rl.envs.configured import configured_request
from gsprune.rl.envs.provider import EnvironmentDescription
from gsprune.rl.envs.registry import describe
from gsprune.rl.evaluation.episodes import Policy
from gsprune.rl.networks import configured_network
from gsprune.rl.training.checkpoints import MODEL_FILE, latest_checkpoint
from gsprune.rl.training.run_folder import read_config

__all__ = ["TrainedAgent", "load_agent"]

_ATTEMPTS = 5


@dataclass(frozen=True)
class TrainedAgent:
    """A network as small as it was at a checkpoint.

    Attributes:
        network: in eval mode, on `device`, in the memory format in which it was trained.
        config: the run's options.
        environment: the description of its environment.
        checkpoint: the folder it was read from.
        step: environment steps it was trained for.
        device: where the network lives.
        complaints: a line per newer checkpoint that is damaged.
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
        """How it is evaluated: "sampled" for PPO, "greedy" for DQN."""
        return self.algorithm.acts

    @property
    def algorithm(self) -> Algorithm:
        """The algorithm that trained it."""
        return algorithm_of(self.config["algorithm"])

    @property
    def acting_part(self) -> nn.Module:
        """The part of the network that acts: observations in, logits, means or Q values out."""
        return self.algorithm.acting_part(self.network)

    def build_dense(self) -> nn.Module:
        """A network of the size with which the run began, freshly initialised."""
        return configured_network(self.config, self.environment, self.algorithm.build_network)

    def policy(self, generator: torch.Generator) -> Policy:
        """The agent as the paper evaluates it; a greedy one makes no use of the generator."""
        return self.algorithm.policy(self.acting_part, self.network, self.environment, generator, self.device)


def load_agent(folder: Path, device: torch.device | str = "cpu") -> TrainedAgent:
    """Read the newest undamaged checkpoint of a run; takes no lock and writes nothing.

    A run that is going on deletes old checkpoints: if one vanishes while it is read, the next newest is.

    Args:
        folder: the run folder.
        device: where to.

    Returns:
        The agent.

    Raises:
        ValueError: `folder` is no run.
        CheckpointError: no checkpoint is there, or all are damaged.
    """
    config = read_config(folder)
    for _ in range(_ATTEMPTS - 1):
        try:
            return _load(folder, config, torch.device(device))
        except (CheckpointError, OSError):
            continue
    return _load(folder, config, torch.device(device))


def _load(folder: Path, config: dict[str, Any], device: torch.device) -> TrainedAgent:
    checkpoint, complaints = latest_checkpoint(folder / "checkpoints")
    environment = describe(configured_request(config))
    network = configured_network(config, environment, algorithm_of(config["algorithm"]).build_network)
    gsprune.load(checkpoint / MODEL_FILE, into=network)
    if config.get("channels_last", True):
        network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    step = int(checkpoint.name.removeprefix("step-"))
    return TrainedAgent(network.to(device).eval(), config, environment, checkpoint, step, device, tuple(complaints))
