"""The Impala-CNN encoder (Espeholt et al. 2018, https://arxiv.org/abs/1802.01561) and Impoola, its variant that pools.

Impoola (Trumpp et al. 2025, https://arxiv.org/abs/2503.05546) averages over space before the dense layer. It has far
fewer parameters, but nearly as many multiplications.
"""

from __future__ import annotations

import math
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gsprune.networks.frames import FRAME_SHAPE, ObservationShape, scaled_channels, unit_interval

__all__ = ["ConvSequence", "ImpalaEncoder", "ResidualBlock"]

_CHANNELS = (16, 32, 32)


class ResidualBlock(nn.Module):
    """``x + conv1(relu(conv0(relu(x))))`` at constant width and resolution."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv0 = nn.Conv2d(channels, channels, kernel_size=3, padding=1)
        self.conv1 = nn.Conv2d(channels, channels, kernel_size=3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """(B, channels, H, W) -> the same shape."""
        inner = F.relu(self.conv0(F.relu(x)))
        return torch.add(x, self.conv1(inner))


class ConvSequence(nn.Module):
    """A convolution, a pooling that halves the resolution, and two residual blocks."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, out_channels, kernel_size=3, padding=1)
        self.block0 = ResidualBlock(out_channels)
        self.block1 = ResidualBlock(out_channels)

    def forward(self, x: Tensor) -> Tensor:
        """(B, in_channels, H, W) -> (B, out_channels, ceil(H / 2), ceil(W / 2))."""
        x = F.max_pool2d(self.conv(x), kernel_size=3, stride=2, padding=1)
        return cast(Tensor, self.block1(self.block0(x)))


class ImpalaEncoder(nn.Module):
    """Three `ConvSequence` and a dense layer; with `pooled` a mean over space before the dense layer.

    Attributes:
        num_features: size of the output.
        pooled: True for Impoola, False for Impala.
    """

    def __init__(
        self,
        width: float = 1,
        pooled: bool = False,
        num_features: int = 256,
        observation_shape: ObservationShape = FRAME_SHAPE,
    ) -> None:
        """Create the encoder with PyTorch's default initialisation.

        Args:
            width: tau in Impoola, >= 1: multiplier of the filters (16, 32, 32) of the three stages.
            pooled: average over space (Impoola) instead of flattening (Impala).
            num_features: size of the output; not scaled by `width`.
            observation_shape: (C, H, W) of one observation.

        Raises:
            ValueError: `width` is below 1.
        """
        super().__init__()
        channels = scaled_channels(_CHANNELS, width)
        in_channels, *sides = observation_shape
        inputs = (in_channels, *channels[:-1])
        self.sequences = nn.Sequential(*(ConvSequence(*pair) for pair in zip(inputs, channels, strict=True)))
        # Each stage halves a side and rounds up.
        positions = 1 if pooled else math.prod(-(-side // 2 ** len(channels)) for side in sides)
        self.linear = nn.Linear(channels[-1] * positions, num_features)
        self.num_features = num_features
        self.pooled = pooled

    def forward(self, frames: Tensor) -> Tensor:
        """Features of frames.

        Args:
            frames: (B, C, H, W), uint8 or float in 0..255.

        Returns:
            (B, num_features), >= 0.
        """
        x = F.relu(self.sequences(unit_interval(frames)))
        if self.pooled:
            x = F.adaptive_avg_pool2d(x, 1)
        return F.relu(self.linear(torch.flatten(x, 1)))
