"""The encoder of OpenAI's universe-starter-agent for `gsprune train ppo --encoder pong_network:Universe`.

Its authors chose it for frames of 42 x 42, in which an agent learns Pong quickly
(https://github.com/openai/universe-starter-agent; there an LSTM follows it, here four stacked frames precede it).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

__all__ = ["Universe"]


class Universe(nn.Module):
    """Four convolutions of stride 2 with 32 channels, and a dense layer."""

    def __init__(self, observation_shape: tuple[int, int, int]) -> None:
        """Make the encoder of frames (C, H, W)."""
        super().__init__()
        layers: list[nn.Module] = []
        channels = observation_shape[0]
        for _ in range(4):
            layers += [nn.Conv2d(channels, 32, 3, stride=2, padding=1), nn.ELU()]
            channels = 32
        self.convolutions = nn.Sequential(*layers)
        num_inputs = self.convolutions(torch.zeros(1, *observation_shape)).numel()
        self.num_features = 256
        self.linear = nn.Linear(num_inputs, self.num_features)

    def forward(self, frames: Tensor) -> Tensor:
        """Features (N, 256) of frames (N, C, H, W) uint8."""
        return torch.relu(self.linear(self.convolutions(frames.float() / 255).flatten(1)))
