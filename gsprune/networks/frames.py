"""What all encoders share: the shape and the scale of frames, and widths."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

__all__ = ["FRAME_CHANNELS", "FRAME_SIDE", "example_frames", "scaled_channels", "unit_interval"]

FRAME_CHANNELS = 3
FRAME_SIDE = 64


def unit_interval(frames: Tensor) -> Tensor:
    """Frames divided by 255, as float32 (or in the frames' own floating type).

    Dividing bytes by a number promotes to float32 in the same pass over memory and keeps the memory format.

    Args:
        frames: any shape, uint8 or float, 0..255.
    """
    return frames / 255


def example_frames(batch_size: int = 1, device: torch.device | str = "cpu") -> Tensor:
    """Black frames for tracing and timing: (batch_size, 3, 64, 64) uint8, laid out as the environments lay them out."""
    shape = (batch_size, FRAME_SIDE, FRAME_SIDE, FRAME_CHANNELS)
    return torch.zeros(shape, dtype=torch.uint8, device=device).permute(0, 3, 1, 2)


def scaled_channels(channels: Sequence[int], width: float) -> tuple[int, ...]:
    """`channels` times `width`, rounded to the nearest integer.

    Raises:
        ValueError: `width` is below 1 or not finite.
    """
    if not (math.isfinite(width) and width >= 1):
        raise ValueError(f"`width` must be at least 1, got {width}; 1 is the smallest published network")
    return tuple(round(count * width) for count in channels)
