"""Operations that use a consumer's weight."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

__all__ = ["ConvGeometry", "Use", "padding_share"]


class ConvGeometry(NamedTuple):
    """Sizes, stride, padding (on either side) and dilation of a convolution: one number per axis of the picture."""

    sizes: tuple[int, ...]
    stride: tuple[int, ...]
    padding: tuple[int, ...]
    dilation: tuple[int, ...]

    def output_sizes(self, sizes: Sequence[int]) -> tuple[int, ...]:
        """Sizes of the outputs of a picture."""
        return tuple(
            (size + 2 * padding - dilation * (width - 1) - 1) // stride + 1
            for size, width, stride, padding, dilation in zip(sizes, *self, strict=True)
        )


@dataclass(frozen=True)
class Use:
    """One operation that sums over a consumer's input axis.

    Attributes:
        weight: canonical name of the weight.
        inputs: the activations that it reads.
        channel_axis: the axis of `inputs` that the weight's input axis meets.
        groups: the number of convolution groups.
        transposed: True for a transposed convolution.
        padding: the share of zero padding among the elements that it reads, in [0, 1).
        kernel: the geometry of a convolution with one group that is not transposed; else None.
        route: a number for the indices that have selected the samples (`routing`); None if all samples are read.
    """

    weight: str
    inputs: Tensor
    channel_axis: int
    groups: int = 1
    transposed: bool = False
    padding: float = 0.0
    kernel: ConvGeometry | None = None
    route: int | None = None

    @property
    def is_depthwise(self) -> bool:
        """True if one input per group is left: of a depthwise convolution, or of a consumer that became one."""
        return self.groups == self.inputs.shape[self.channel_axis]


def padding_share(sizes: Sequence[int], kernel: ConvGeometry) -> float:
    """The share of zero padding among the elements that a convolution reads, in [0, 1)."""
    inside = 1.0
    for size, outputs, width, step, pad, gap in zip(sizes, kernel.output_sizes(sizes), *kernel, strict=True):
        reads = (torch.arange(outputs) * step - pad)[:, None] + torch.arange(width) * gap
        inside *= float(((reads >= 0) & (reads < size)).double().mean())
    return 1 - inside
