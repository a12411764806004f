"""Samples of the patches that a convolution reads: its inputs at all positions of the kernel."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

import torch
from torch import Tensor

from gsprune.compensation.consumer import Consumer
from gsprune.compensation.sample import Sample
from gsprune.compensation.spread import spread
from gsprune.compensation.uses import Use

__all__ = ["PatchSample", "num_patch_rows"]

# The largest cost of a fit on patches, relative to the layer's own multiplications on the calibration data. The
# measurement is in docs/results/compensation.md.
_MAX_COST = 2.0
# Fewer rows per column fit their noise. More change little.
_MIN_ROWS_PER_COLUMN = 4
_MAX_ROWS_PER_COLUMN = 8
# The number of rows for the fit of a pointwise convolution with few columns.
_MIN_ROWS = 4096
# The time of decomposing a square matrix, as a number of rows per column.
_SOLVING_ROWS_PER_COLUMN = 10


class PatchSample:
    """Patches at some positions of one use in the dense network, at most `max_rows`; see `Sample`.

    They are multiplied by `weights`, (outputs, inputs, kernel), the concatenated weights of the targets.

    Attributes:
        products: (rows, outputs), the products of patches and weights.
        channels: a sample of the inputs; None for a pointwise convolution, whose patches are its inputs.
        is_routed: True if indices have selected the samples.
    """

    def __init__(
        self, use: Use, consumer: Consumer, weights: Tensor, max_rows: int, seed: Sequence[int], is_first: bool
    ) -> None:
        self.num_rows = _num_patches(use)
        rows = spread(max_rows, self.num_rows, seed)
        self._rows = torch.from_numpy(rows).to(use.inputs.device)
        patches = _patches(use, self._rows)
        dtype = torch.promote_types(patches.dtype, torch.float32)
        self.products = patches.flatten(1).to(dtype) @ weights.flatten(1).to(dtype).T
        is_pointwise = use.kernel is not None and prod(use.kernel.sizes) == 1
        self.channels = None if is_pointwise else Sample(use, max_rows, seed, is_first)
        kept = torch.from_numpy(consumer.kept).to(patches.device)
        self.is_routed, self._route, self._is_first = use.route is not None, use.route, is_first
        self._dense = patches[:, kept].flatten(1) if self.is_routed or not is_first else None

    def matches(self, use: Use) -> bool:
        """True if the pruned network's use has the same positions of the same samples."""
        return use.kernel is not None and _num_patches(use) == self.num_rows and use.route == self._route

    def pruned(self, use: Use) -> Tensor:
        """(rows, kept inputs at all kernel positions) of the network whose inputs `Sample` reads."""
        if self._is_first and self.matches(use):
            return _patches(use, self._rows).flatten(1)
        assert self._dense is not None
        return self._dense


def num_patch_rows(use: Use, num_kept: int, weights: Tensor, num_batches: int) -> int:
    """The number of patches per batch of a use in the dense network for a fit on patches.

    0 if a fit on channels is cheaper, or if enough patches are too expensive. `weights` are those of `PatchSample`.
    """
    if use.kernel is None:
        return 0
    columns, patches = num_kept * prod(use.kernel.sizes), _num_patches(use)
    # If a pointwise convolution has fewer outputs than inputs, predicting its outputs costs less. With few samples,
    # only the inputs show duplicates.
    if prod(use.kernel.sizes) == 1:
        if len(weights) >= use.inputs.shape[1] or patches * num_batches <= columns + 1:
            return 0
        return max(1, max(_MIN_ROWS, _MAX_ROWS_PER_COLUMN * columns) // num_batches)
    affordable = int(_MAX_COST * patches * weights.numel() * num_batches / (columns + len(weights)) ** 2)
    rows = min(affordable - _SOLVING_ROWS_PER_COLUMN * columns, _MAX_ROWS_PER_COLUMN * columns, patches * num_batches)
    return max(1, rows // num_batches) if rows >= _MIN_ROWS_PER_COLUMN * columns else 0


def _num_patches(use: Use) -> int:
    assert use.kernel is not None
    return len(use.inputs) * prod(use.kernel.output_sizes(use.inputs.shape[2:]))


def _patches(use: Use, rows: Tensor) -> Tensor:
    """(rows, inputs, kernel positions): the elements that the kernel reads at some outputs; 0 beyond the border."""
    kernel = use.kernel
    assert kernel is not None
    x = use.inputs.detach().movedim(1, -1)
    sizes = x.shape[1:-1]
    outputs = torch.unravel_index(rows, (len(x), *kernel.output_sizes(sizes)))
    offsets = torch.unravel_index(torch.arange(prod(kernel.sizes), device=rows.device), kernel.sizes)
    positions = [outputs[0][:, None]]
    inside = torch.ones(len(rows), len(offsets[0]), dtype=torch.bool, device=rows.device)
    for size, output, offset, stride, padding, dilation in zip(sizes, outputs[1:], offsets, *kernel[1:], strict=True):
        position = output[:, None] * stride - padding + offset * dilation
        inside &= (position >= 0) & (position < size)
        positions.append(position.clamp(0, size - 1))
    return (x[tuple(positions)] * inside[:, :, None]).transpose(1, 2)
