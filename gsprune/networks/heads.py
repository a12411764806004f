"""Agents: an encoder with the heads of an algorithm."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn

from gsprune.networks.impala import ImpalaEncoder
from gsprune.networks.nature import NatureEncoder

__all__ = ["ActorCritic", "Encoder", "QNetwork"]

Encoder = ImpalaEncoder | NatureEncoder


class ActorCritic(nn.Module):
    """One encoder shared by a policy over discrete actions and a value function."""

    def __init__(self, encoder: Encoder, num_actions: int) -> None:
        """Put the heads on `encoder`; their width, the number of actions and one value, is never pruned."""
        super().__init__()
        self.encoder = encoder
        self.actor = _orthogonal_linear(encoder.num_features, num_actions, gain=0.01)
        self.critic = _orthogonal_linear(encoder.num_features, 1, gain=1.0)

    def forward(self, frames: Tensor) -> tuple[Tensor, Tensor]:
        """Logits and values of frames.

        Args:
            frames: (B, 3, 64, 64), uint8 or float in 0..255.

        Returns:
            logits (B, num_actions) and values (B,).
        """
        features = self.encoder(frames)
        return self.actor(features), self.critic(features).squeeze(-1)


class QNetwork(nn.Module):
    """An encoder with a head of action values."""

    def __init__(self, encoder: Encoder, num_actions: int) -> None:
        """Put the head on `encoder`; its width, the number of actions, is never pruned."""
        super().__init__()
        self.encoder = encoder
        self.head = _orthogonal_linear(encoder.num_features, num_actions, gain=0.01)

    def forward(self, frames: Tensor) -> Tensor:
        """Action values of frames.

        Args:
            frames: (B, 3, 64, 64), uint8 or float in 0..255.

        Returns:
            (B, num_actions).
        """
        return cast(Tensor, self.head(self.encoder(frames)))


def _orthogonal_linear(in_features: int, out_features: int, gain: float) -> nn.Linear:
    """A dense layer with orthogonal weights and no bias at the start, so that the first policy is nearly uniform."""
    layer = nn.Linear(in_features, out_features)
    nn.init.orthogonal_(layer.weight, gain)
    with torch.no_grad():
        layer.bias.zero_()
    return layer
