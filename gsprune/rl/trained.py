"""The agent of a run's newest checkpoint, also while the run goes on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

import gsprune
from gsprune.errors import CheckpointError
from gsprune.networks import ActorCritic, QNetwork, build_encoder
from gsprune.rl.envs.procgen import NUM_ACTIONS
from gsprune.rl.evaluation.episodes import Policy, greedy_policy, sampled_policy
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
        checkpoint: the folder it was read from.
        step: environment steps it was trained for.
        device: where the network lives.
        complaints: a line per newer checkpoint that is damaged.
    """

    network: nn.Module
    config: dict[str, Any]
    checkpoint: Path
    step: int
    device: torch.device
    complaints: tuple[str, ...]

    @property
    def acts(self) -> str:
        """How it is evaluated: "sampled" for PPO, "greedy" for DQN."""
        return "greedy" if self.config["algorithm"] == "dqn" else "sampled"

    def policy(self, generator: torch.Generator) -> Policy:
        """The agent as the paper evaluates it; a greedy one makes no use of the generator."""
        if self.acts == "greedy":
            return greedy_policy(self.network, self.device)
        return sampled_policy(lambda frames: self.network(frames)[0], generator, self.device)


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
    build: Callable[..., nn.Module] = QNetwork if config["algorithm"] == "dqn" else ActorCritic
    network = build(build_encoder(config["encoder"], config["width"]), NUM_ACTIONS)
    gsprune.load(checkpoint / MODEL_FILE, into=network)
    if config.get("channels_last", True):
        network = network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    step = int(checkpoint.name.removeprefix("step-"))
    return TrainedAgent(network.to(device).eval(), config, checkpoint, step, device, tuple(complaints))
