"""Shared parts of all encoders: the shape and the scale of observations, and widths."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TypeAlias

import torch
from torch import Tensor

__all__ = ["FRAME_SHAPE", "ObservationShape", "example_frames", "scaled_channels", "unit_interval"]

ObservationShape: TypeAlias = tuple[int, int, int]
"""(C, H, W) of one observation."""

FRAME_SHAPE: ObservationShape = (3, 64, 64)
"""The default shape of observations: that of Procgen, for which the encoders were published."""


def unit_interval(frames: Tensor) -> Tensor:
    """Frames divided by 255, as float32 (or in the frames' own floating type).

    Dividing bytes by a number promotes to float32 in the same pass over memory and keeps the memory format.

    Args:
        frames: any shape, uint8 or float, 0..255.
    """
    return frames / 255


def example_frames(
    batch_size: int = 1, device: torch.device | str = "cpu", observation_shape: ObservationShape = FRAME_SHAPE
) -> Tensor:
    """Black frames for tracing and timing: (batch_size, C, H, W) uint8, channels last in memory."""
    channels, height, width = observation_shape
    shape = (batch_size, height, width, channels)
    return torch.zeros(shape, dtype=torch.uint8, device=device).permute(0, 3, 1, 2)


def scaled_channels(channels: Sequence[int], width: float) -> tuple[int, ...]:
    """`channels` times `width`, rounded to the nearest integer.

    Raises:
        ValueError: `width` is below 1 or not finite.
    """
    if not (math.isfinite(width) and width >= 1):
        raise ValueError(f"`width` must be at least 1, got {width}; 1 is the smallest published network")
    return tuple(round(count * width) for count in channels)
