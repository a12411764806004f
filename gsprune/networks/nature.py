"""The Nature-CNN encoder (Mnih et al. 2015, https://doi.org/10.1038/nature14236)."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gsprune.networks.frames import FRAME_SHAPE, ObservationShape, scaled_channels, unit_interval

__all__ = ["NatureEncoder"]

_CHANNELS = (32, 64, 64)
_LAYERS = ((8, 4), (4, 2), (3, 1))  # kernel size and stride of each convolution


class NatureEncoder(nn.Module):
    """Three strided convolutions and a dense layer.

    Attributes:
        num_features: size of the output.
    """

    def __init__(
        self, width: float = 1, num_features: int = 256, observation_shape: ObservationShape = FRAME_SHAPE
    ) -> None:
        """Create the encoder with PyTorch's default initialisation.

        Args:
            width: multiplier of the filters (32, 64, 64) of the convolutions, >= 1.
            num_features: size of the output; not scaled by `width`.
            observation_shape: (C, H, W) of one observation; at least 36 pixels high and wide.

        Raises:
            ValueError: `width` is below 1, or the observations are too small for the convolutions.
        """
        super().__init__()
        first, second, third = scaled_channels(_CHANNELS, width)
        in_channels, *sides = observation_shape
        positions = math.prod(_features_side(side) for side in sides)
        if positions == 0:
            raise ValueError(
                f"`observation_shape` is too small for the Nature-CNN, got {observation_shape}: it needs 36 pixels in"
                " height and width; resize the observations, or use impala or impoola"
            )
        (kernel1, stride1), (kernel2, stride2), (kernel3, stride3) = _LAYERS
        self.conv1 = nn.Conv2d(in_channels, first, kernel1, stride1)
        self.conv2 = nn.Conv2d(first, second, kernel2, stride2)
        self.conv3 = nn.Conv2d(second, third, kernel3, stride3)
        self.linear = nn.Linear(third * positions, num_features)
        self.num_features = num_features

    def forward(self, frames: Tensor) -> Tensor:
        """Features of frames.

        Args:
            frames: (B, C, H, W), uint8 or float in 0..255.

        Returns:
            (B, num_features), >= 0.
        """
        x = unit_interval(frames)
        for conv in (self.conv1, self.conv2, self.conv3):
            x = F.relu(conv(x))
        return F.relu(self.linear(torch.flatten(x, 1)))


def _features_side(side: int) -> int:
    """Height or width of the last convolution's output; 0 if the input is too small."""
    for kernel, stride in _LAYERS:
        side = (side - kernel) // stride + 1 if side >= kernel else 0
    return side
