"""The backend in plain torch, on any device: slow and simple, as defined in `gsprune.kernels.reference`."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

from gsprune.arrays import BoolArray, Float32Array, Float64Array, IntArray
from gsprune.backends.protocol import Pattern
from gsprune.kernels import reference

__all__ = ["TorchBackend"]


class TorchBackend:
    """Plain torch; see `gsprune.backends.Backend` for its methods."""

    name = "torch"
    rewrite = None

    def axis_sums(
        self,
        tensors: list[Tensor],
        axes: list[tuple[int, ...]],
        others: Sequence[Tensor | None] | None,
        statistic: str,
    ) -> Float64Array:
        """See `Backend.axis_sums`."""
        others = [None] * len(tensors) if others is None else others
        jobs = zip(tensors, axes, others, strict=True)
        vectors = [vector for job in jobs for vector in reference.axis_sums(*job, statistic)]
        return np.concatenate([np.zeros(0), *(vector.cpu().numpy() for vector in vectors)])

    def select_groups(self, scores: Float32Array, first_unit: IntArray, kept: IntArray) -> BoolArray:
        """See `Backend.select_groups`."""
        if np.isnan(scores).any():
            raise ValueError("`scores` must not hold NaN, which has no rank")
        keep = np.zeros(len(scores), dtype=bool)
        for index, ((first, last), count) in enumerate(zip(pairwise(first_unit.tolist()), kept.tolist(), strict=True)):
            if not 0 <= count <= last - first:
                raise ValueError(
                    f"`kept[{index}]` must lie in [0, {last - first}], the units of the group, got {count}"
                )
            keep[reference.select(torch.from_numpy(scores[first:last]), count).numpy() + first] = True
        return keep

    def slice(self, tensors: Sequence[Tensor], patterns: Sequence[Pattern], pattern_of: Sequence[int]) -> list[Tensor]:
        """See `Backend.slice`."""
        sliced = []
        for tensor, index in zip(tensors, pattern_of, strict=True):
            keeps = [(axis, torch.from_numpy(kept).to(tensor.device)) for axis, kept in patterns[index]]
            sliced.append(reference.slice_tensor(tensor, keeps))
        return sliced
