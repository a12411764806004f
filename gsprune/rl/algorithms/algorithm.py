"""The description of a training algorithm, by which commands, evaluations and exports use it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import torch
from torch import Tensor, nn

from gsprune.rl.envs.provider import EnvironmentDescription
from gsprune.rl.evaluation.episodes import Policy
from gsprune.rl.networks import BuildNetwork
from gsprune.rl.training.config import TrainConfig
from gsprune.rl.training.trainer import Trainer

__all__ = ["Algorithm", "MakePolicy"]


class MakePolicy(Protocol):
    """Makes the policy of an agent from the outputs of its acting part."""

    def __call__(
        self,
        outputs: Callable[[Tensor], Tensor],
        network: nn.Module,
        environment: EnvironmentDescription,
        generator: torch.Generator,
        device: torch.device | str = "cpu",
    ) -> Policy:
        """Make a policy.

        Args:
            outputs: observations (B, C, H, W) uint8 on `device` -> outputs of the acting part.
            network: of the agent.
            environment: that is played.
            generator: on `device`; a greedy policy ignores it.
            device: of the network.
        """


@dataclass(frozen=True)
class Algorithm:
    """One algorithm.

    Attributes:
        name: as in ``gsprune train NAME``; a run's folder keeps it.
        config: the class of its options.
        presets: the values of ``--preset``; "paper" is the default.
        trainer: the class of its trainer.
        build_network: its network on an encoder.
        acting_part: the part of its network that is exported: observations in, one output.
        output_name: the name of that output.
        policy: its policy.
        acts: whether that policy samples its actions or takes the best.
    """

    name: str
    config: type[TrainConfig]
    presets: Mapping[str, TrainConfig]
    trainer: type[Trainer[Any]]
    build_network: BuildNetwork
    acting_part: Callable[[nn.Module], nn.Module]
    output_name: Callable[[EnvironmentDescription], str]
    policy: MakePolicy
    acts: Literal["sampled", "greedy"]
