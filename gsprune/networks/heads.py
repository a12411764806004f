"""Agents: an encoder with the heads of an algorithm."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn

from gsprune.networks.impala import ImpalaEncoder
from gsprune.networks.nature import NatureEncoder

__all__ = ["ActorCritic", "Agent", "Encoder", "QNetwork"]

Encoder = ImpalaEncoder | NatureEncoder


class ActorCritic(nn.Module):
    """One encoder shared by a policy over discrete actions and a value function."""

    def __init__(self, encoder: Encoder, num_actions: int) -> None:
        """Put the heads on `encoder`; their width, the number of actions and one value, is never pruned."""
        super().__init__()
        self.encoder = encoder
        self.actor = nn.Linear(encoder.num_features, num_actions)
        self.critic = nn.Linear(encoder.num_features, 1)
        self._reset_heads()

    def reset_parameters(self) -> None:
        """Draw all weights anew, at the present widths."""
        _reset_layers(self.encoder)
        self._reset_heads()

    def forward(self, frames: Tensor) -> tuple[Tensor, Tensor]:
        """Logits and values of frames.

        Args:
            frames: (B, 3, 64, 64), uint8 or float in 0..255.

        Returns:
            logits (B, num_actions) and values (B,).
        """
        features = self.encoder(frames)
        return self.actor(features), self.critic(features).squeeze(-1)

    def _reset_heads(self) -> None:
        _make_orthogonal(self.actor, gain=0.01)
        _make_orthogonal(self.critic, gain=1.0)


class QNetwork(nn.Module):
    """An encoder with a head of action values."""

    def __init__(self, encoder: Encoder, num_actions: int) -> None:
        """Put the head on `encoder`; its width, the number of actions, is never pruned."""
        super().__init__()
        self.encoder = encoder
        self.head = nn.Linear(encoder.num_features, num_actions)
        _make_orthogonal(self.head, gain=0.01)

    def reset_parameters(self) -> None:
        """Draw all weights anew, at the present widths."""
        _reset_layers(self.encoder)
        _make_orthogonal(self.head, gain=0.01)

    def forward(self, frames: Tensor) -> Tensor:
        """Action values of frames.

        Args:
            frames: (B, 3, 64, 64), uint8 or float in 0..255.

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
    """PyTorch's default initialisation, as when the layers were made."""
    for module in encoder.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            module.reset_parameters()
