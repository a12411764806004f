"""Agents: an encoder with the heads of an algorithm."""

from __future__ import annotations

from typing import ClassVar, Protocol, cast

import torch
from torch import Tensor, nn

__all__ = ["ActorCritic", "Agent", "Encoder", "QNetwork"]


class Encoder(Protocol):
    """A module from observations (B, C, H, W) to features (B, num_features)."""

    num_features: int

    def __call__(self, frames: Tensor) -> Tensor:
        """Features of observations, uint8 or float in 0..255."""


class ActorCritic(nn.Module):
    """One encoder shared by a policy and a value function.

    Attributes:
        heads: names of the output layers, which are never masked.
        log_std: (num_outputs,) logarithms of the standard deviations of a Gaussian policy, which do not depend on the
            observation; absent for discrete actions.
    """

    heads: ClassVar[tuple[str, ...]] = ("actor", "critic")

    def __init__(self, encoder: Encoder, num_actions: int, is_gaussian: bool = False) -> None:
        """Add the heads to `encoder`. Their outputs are never pruned.

        Args:
            encoder: a module.
            num_actions: number of the policy's outputs: logits of discrete actions, or means of continuous ones.
            is_gaussian: add `log_std`, with initial values of 0.
        """
        super().__init__()
        self.encoder = encoder
        if is_gaussian:
            self.log_std = nn.Parameter(torch.zeros(num_actions))
        self.actor = nn.Linear(encoder.num_features, num_actions)
        self.critic = nn.Linear(encoder.num_features, 1)
        self._reset_heads()

    def reset_parameters(self) -> None:
        """Initialise all weights again, at the present widths."""
        _reset_layers(cast(nn.Module, self.encoder))
        self._reset_heads()
        if hasattr(self, "log_std"):
            nn.init.zeros_(self.log_std)

    def forward(self, frames: Tensor) -> tuple[Tensor, Tensor]:
        """Outputs of the policy, and values.

        Args:
            frames: (B, C, H, W), uint8 or float in 0..255.

        Returns:
            logits or means (B, num_actions), and values (B,).
        """
        features = self.encoder(frames)
        return self.actor(features), self.critic(features).squeeze(-1)

    def _reset_heads(self) -> None:
        _make_orthogonal(self.actor, gain=0.01)
        _make_orthogonal(self.critic, gain=1.0)


class QNetwork(nn.Module):
    """An encoder with a head of action values.

    Attributes:
        heads: names of the output layers, which are never masked.
    """

    heads: ClassVar[tuple[str, ...]] = ("head",)

    def __init__(self, encoder: Encoder, num_actions: int) -> None:
        """Add the head to `encoder`. Its outputs, one per action, are never pruned."""
        super().__init__()
        self.encoder = encoder
        self.head = nn.Linear(encoder.num_features, num_actions)
        _make_orthogonal(self.head, gain=0.01)

    def reset_parameters(self) -> None:
        """Initialise all weights again, at the present widths."""
        _reset_layers(cast(nn.Module, self.encoder))
        _make_orthogonal(self.head, gain=0.01)

    def forward(self, frames: Tensor) -> Tensor:
        """Action values of frames.

        Args:
            frames: (B, C, H, W), uint8 or float in 0..255.

        Returns:
            (B, num_actions).
        """
        return cast(Tensor, self.head(self.encoder(frames)))


Agent = ActorCritic | QNetwork


def _make_orthogonal(layer: nn.Linear, gain: float) -> None:
    """Orthogonal weights and no bias, so that the first policy is nearly uniform."""
    nn.init.orthogonal_(layer.weight, gain)
    with torch.no_grad():
        layer.bias.zero_()


def _reset_layers(encoder: nn.Module) -> None:
    """Initialise the layers again, with PyTorch's defaults."""
    for module in encoder.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            module.reset_parameters()
