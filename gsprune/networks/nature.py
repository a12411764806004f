"""The Nature-CNN encoder (Mnih et al. 2015, https://doi.org/10.1038/nature14236)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gsprune.networks.frames import FRAME_CHANNELS, scaled_channels, unit_interval

__all__ = ["NatureEncoder"]

_CHANNELS = (32, 64, 64)
_FEATURES_SIDE = 4  # 64 -> 15 -> 6 -> 4


class NatureEncoder(nn.Module):
    """Three strided convolutions and a dense layer.

    Attributes:
        num_features: size of the output.
    """

    def __init__(self, width: float = 1, num_features: int = 256) -> None:
        """Create the encoder with PyTorch's default initialisation.

        Args:
            width: factor on the filters (32, 64, 64) of the convolutions, >= 1.
            num_features: size of the output; not scaled by `width`.

        Raises:
            ValueError: `width` is below 1.
        """
        super().__init__()
        first, second, third = scaled_channels(_CHANNELS, width)
        self.conv1 = nn.Conv2d(FRAME_CHANNELS, first, kernel_size=8, stride=4)
        self.conv2 = nn.Conv2d(first, second, kernel_size=4, stride=2)
        self.conv3 = nn.Conv2d(second, third, kernel_size=3, stride=1)
        self.linear = nn.Linear(third * _FEATURES_SIDE**2, num_features)
        self.num_features = num_features

    def forward(self, frames: Tensor) -> Tensor:
        """Features of frames.

        Args:
            frames: (B, 3, 64, 64), uint8 or float in 0..255.

        Returns:
            (B, num_features), >= 0.
        """
        x = unit_interval(frames)
        for conv in (self.conv1, self.conv2, self.conv3):
            x = F.relu(conv(x))
        return F.relu(self.linear(torch.flatten(x, 1)))
