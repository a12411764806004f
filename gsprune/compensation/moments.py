"""Second moments of a consumer's inputs in the dense network and in the pruned one, as a triangular factor."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import torch
from torch import Tensor

from gsprune.arrays import Float64Array

__all__ = ["Moments", "Stack"]

# Named float64 arrays -> those of all ranks of a process group, along a new first axis.
Stack = Callable[[Mapping[str, Float64Array]], dict[str, Float64Array]]


class Moments:
    """Moments of the kept inputs z, and of the lost part r = x - A0 z of the inputs x.

    A0 z has the kept inputs at their places and zeros at those of the removed ones. The sums over samples of all
    products of (1, z) with (1, z, r) are R^T R for the R that is stored here, a triangle with more columns. R has twice
    the digits of the sums. Its last row has the norm of the part of r that no combination of (1, z) predicts.

    Args:
        kept: (groups, kept) int64, indices of the kept inputs. There is one group except in a grouped convolution.
        inputs: the number of inputs of a group.

    Attributes:
        factor: (groups, rows, 1 + kept + inputs) float64, R; it has at most 2 + kept rows.
        samples: number of samples.
    """

    def __init__(self, kept: Tensor, inputs: int) -> None:
        self.kept = kept
        self.num_kept = kept.shape[1]
        columns = 1 + self.num_kept + inputs
        self.factor = torch.zeros(len(kept), 0, columns, dtype=torch.float64, device=kept.device)
        self.samples = 0

    def add(self, dense: Tensor, pruned: Tensor, padding: float) -> None:
        """Add samples.

        The consumer's inputs are (groups, samples, inputs) in the dense network, and (groups, samples, kept) in the
        pruned one. `padding` is the share of zero padding, in [0, 1). It counts as samples in which only the constant 1
        is not zero.
        """
        for x, z in zip(torch.split(dense, self._chunk_size, 1), torch.split(pruned, self._chunk_size, 1), strict=True):
            lost = x.double().scatter_add(2, self.kept[:, None].expand(-1, z.shape[1], -1), -z.double())
            self.add_lost(z, lost, padding)

    @property
    def _chunk_size(self) -> int:
        """Number of samples that are added at a time. Their memory is at most that of the factor."""
        return max(self.factor.shape[2], 1024)

    def add_lost(self, z: Tensor, lost: Tensor, padding: float = 0.0) -> None:
        """Add samples of z, (groups, samples, kept), and of r, (groups, samples, inputs)."""
        for kept, r in zip(torch.split(z, self._chunk_size, 1), torch.split(lost, self._chunk_size, 1), strict=True):
            added = torch.cat([torch.ones_like(kept[:, :, :1]), kept, r], 2).double()
            padded = torch.zeros_like(added[:, :1])
            padded[:, :, 0] = (kept.shape[1] * padding / (1 - padding)) ** 0.5
            self.factor = self._reduced(torch.cat([self.factor, added, padded], 1))
            self.samples += kept.shape[1]

    def _reduced(self, rows: Tensor) -> Tensor:
        """R of samples, or of the rows of several R."""
        reflectors, scales = torch.geqrf(rows[:, :, : 1 + self.num_kept])
        size = scales.shape[1]
        products = torch.ormqr(reflectors[:, :, :size], scales, rows[:, :, 1 + self.num_kept :], transpose=True)
        factor = rows.new_zeros(len(rows), size + 1, rows.shape[2])
        factor[:, :size] = torch.cat([reflectors[:, :size].triu(), products[:, :size]], 2)
        factor[:, size, 1 + self.num_kept :] = torch.linalg.vector_norm(products[:, size:], dim=1)
        return factor

    def without(self, weight: Tensor, constant: Tensor) -> Moments:
        """The moments of z and r - D z - c, with D (groups, inputs, kept) and c (groups, inputs), both float64."""
        end = 1 + self.num_kept
        moments = Moments(self.kept, self.factor.shape[2] - end)
        moments.factor, moments.samples = self.factor.clone(), self.samples
        predictor = torch.cat([constant[:, :, None], weight], 2)
        moments.factor[:, :, end:] -= self.factor[:, :, :end] @ predictor.mT
        return moments

    def mean_square(self) -> Tensor:
        """(groups, inputs) float64, mean square of r."""
        return self.factor[:, :, 1 + self.num_kept :].square().sum(1) / self.samples

    def kept_mean_square(self) -> float:
        """Mean square of the kept inputs."""
        kept = self.factor[:, :, 1 : 1 + self.num_kept]
        return float(kept.square().sum()) / (self.samples * kept.shape[0] * kept.shape[2])

    def is_finite(self) -> bool:
        """False if a sample was NaN or infinite."""
        return bool(torch.isfinite(self.factor).all())

    def explained(self, lost: float, unexplained: float, weights: float, dtype: torch.dtype) -> float:
        """The share of the lost variance that a map explains.

        `lost` is the mean square of the lost part of a consumer's outputs without the map, `unexplained` with it.
        `weights` is the sum of the squares of the consumer's weights.
        """
        # If the removed inputs are zero, nothing is lost, and the two networks differ by rounding.
        rounding = 10 * torch.finfo(dtype).eps ** 2
        if lost <= rounding * weights * self.kept_mean_square():
            return 1.0
        return max(0.0, 1 - unexplained / lost)

    def of_all_ranks(self, name: str, stack: Stack | None) -> Moments:
        """The moments of the samples of all ranks, which must all call this. Without a `stack` there is one rank."""
        if stack is None:
            return self
        # A factor of few samples has fewer rows than others.
        padded = torch.nn.functional.pad(self.factor, (0, 0, 0, 2 + self.num_kept - self.factor.shape[1])).cpu().numpy()
        names = f"moments of {name}", f"samples of {name}"
        stacked = stack(dict(zip(names, (padded, np.array([float(self.samples)])), strict=True)))
        factors = torch.from_numpy(stacked[names[0]]).to(self.factor.device)
        moments = Moments(self.kept, self.factor.shape[2] - 1 - self.num_kept)
        moments.factor = self._reduced(factors.transpose(0, 1).flatten(1, 2))
        moments.samples = int(stacked[names[1]].sum())
        return moments
