"""The inputs of the checks and the timings on a GPU: tensors, jobs, cuts and the schedule of steps."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from gsprune.backends import Pattern

__all__ = ["KEEP", "STEP_SPARSITIES", "drawn", "jobs_of", "patterns_of"]

Jobs = tuple[list[torch.Tensor], list[tuple[int, ...]], list[torch.Tensor]]  # arguments of `Backend.axis_sums`

KEEP = 0.95  # of every axis: a small cut, as gradual pruning makes it
STEP_SPARSITIES = tuple(round(0.1 + 0.02 * index, 2) for index in range(15))


def drawn(shapes: Sequence[tuple[int, ...]], dtype: torch.dtype, device: torch.device, seed: int) -> list[Tensor]:
    """Normal random tensors, the same on every device."""
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(shape, generator=generator).to(dtype).to(device) for shape in shapes]


def jobs_of(weights: Sequence[Tensor], others: Sequence[Tensor]) -> Jobs:
    """Sums along both axes of every weight."""
    pairs = [(weight, other) for weight, other in zip(weights, others, strict=True) if weight.ndim > 1]
    return [weight for weight, _ in pairs], [(0, 1)] * len(pairs), [other for _, other in pairs]


def patterns_of(shapes: Sequence[tuple[int, ...]]) -> list[Pattern]:
    """A cut of every tensor along its first two axes."""
    random = np.random.default_rng(0)
    patterns = []
    for shape in shapes:
        counts = [(axis, shape[axis], max(1, int(shape[axis] * KEEP))) for axis in range(min(2, len(shape)))]
        patterns.append(tuple((axis, np.sort(random.permutation(n)[:keep])) for axis, n, keep in counts))
    return patterns
