"""The description of a training algorithm for commands, evaluations and exports."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from gsprune.rl.envs.provider import EnvironmentDescription
from gsprune.rl.evaluation.episodes import Policy
from gsprune.rl.training.config import TrainConfig
from gsprune.rl.training.trainer import Trainer

__all__ = ["Algorithm", "MakePolicy"]


MakePolicy = Callable[
    [Callable[[Tensor], Tensor], nn.Module, EnvironmentDescription, torch.Generator, torch.device], Policy
]
"""(outputs, network, environment, generator, device) -> a policy of the network in the environment.

`outputs` maps observations (B, C, H, W) uint8 on `device` to outputs of the network's acting part. The generator is on
`device`, too; a greedy policy ignores it.
"""


@dataclass(frozen=True)
class Algorithm:
    """One algorithm.

    Attributes:
        name: as in ``gsprune train NAME``; stored in the run's folder.
        config: the class of its options.
        presets: the values of ``--preset``; the default is "paper", which is `config()` unless it is here.
        trainer: the class of its trainer.
        acting_part: returns the part of a network that acts and is exported: observations -> one output.
        output_name: returns the name of that output.
        policy: makes its policy.
        acts: "sampled" if the policy samples its actions, "greedy" if it takes the best ones.
    """

    name: str
    config: type[TrainConfig]
    presets: Mapping[str, TrainConfig]
    trainer: type[Trainer[Any]]
    acting_part: Callable[[nn.Module], nn.Module]
    output_name: Callable[[EnvironmentDescription], str]
    policy: MakePolicy
    acts: Literal["sampled", "greedy"]
