"""The loss of a weight's outputs if inputs are removed and the other weights are refitted: optimal brain surgeon."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from gsprune.arrays import Float64Array, IntArray
from gsprune.compensation.solve import RIDGES

__all__ = ["RemovalLoss"]

# A mean square below this share of the input's own is rounding.
_ROUNDING = 1e-20
# A cost below this share of the largest possible cost of all inputs is rounding.
_SMALLEST = 1e-14


class RemovalLoss:
    """The loss of one weight W for the removal of units, one after another.

        loss(S) = min over W' of  E|W x - W' z|^2 + ridge |W_K - W'|^2,   z = x_K, K = the inputs outside S
                = tr W_S [(C^-1)_SS]^-1 W_S^T - ridge |W_S|^2,            C = E[x x^T] + ridge

    The compensation minimises the same loss (`solve`). After a removal, W and C^-1 are those of the remaining inputs,
    so the losses of all removals add up exactly.

    Source: Hassibi and Stork 1993, Second order derivatives for network pruning: optimal brain surgeon,
    https://proceedings.neurips.cc/paper/1992/hash/303ed4c69846ab36c2904d3ba8573050-Abstract.html

    Args:
        factor: (rows, inputs) float64 R with R^T R = E[x x^T].
        weight: (outputs, inputs) float64.
        units: (inputs,) int64, the unit of each input; -1 for inputs that stay.
        num_units: the number of units.
        samples: degrees of freedom of the samples; one less than their number if the means are subtracted.
    """

    def __init__(self, factor: Tensor, weight: Tensor, units: IntArray, num_units: int, samples: int) -> None:
        self._num_units = num_units
        if len(weight) > weight.shape[1]:  # only inner products of columns count
            weight = torch.linalg.qr(weight, mode="r").R * (weight != 0).any(0)
        scale, values, vh = _spectrum(factor)
        ridge = _scoring_ridge(values, vh, samples)
        self.ridge = ridge * scale**2
        # Everything is relative to the largest moment, so that the inverse neither overflows nor vanishes.
        self._weight = weight * scale
        self._inverse = (vh.mT * (1 / (values.square() + ridge) - 1 / ridge)) @ vh
        self._inverse.diagonal().add_(1 / ridge)
        self._set_positions(units)
        self._smallest = _SMALLEST * float(self._weight.square().sum())
        self._penalty = ridge * self._weight.square().sum(0)[self._positions].sum(1)  # (units,)
        self._keep_only(np.arange(len(self._present)))

    def _set_positions(self, units: IntArray) -> None:
        """Sort the inputs by unit; units with fewer inputs than others get inputs of weight zero."""
        self._present = np.unique(units[units >= 0])
        counts = np.bincount(units[units >= 0], minlength=self._num_units)[self._present]
        longest = int(counts.max(initial=0))
        positions = np.full((len(self._present), longest), -1, dtype=np.int64)
        slots = np.arange(longest) < counts[:, None]
        positions[slots] = np.argsort(units, kind="stable")[np.count_nonzero(units < 0) :]
        rows, places = np.nonzero(~slots)
        positions[rows, places] = len(units) + longest - 1 - places
        added = longest - int(counts.min(initial=longest))
        if added:
            self._weight = torch.nn.functional.pad(self._weight, (0, added))
            self._inverse = torch.nn.functional.pad(self._inverse, (0, added, 0, added))
            self._inverse.diagonal()[-added:] = 1
        self._positions = torch.from_numpy(positions).to(self._inverse.device)

    def costs(self) -> Float64Array:
        """(units,) the loss that the removal of each unit adds; 0 for units that are not read or are removed.

        It is negative for a unit whose weights only compensate for removed units: the ridge on their change is saved.
        """
        at = self._positions
        if at.shape[1] == 1:
            found = (torch.linalg.vector_norm(self._weight, dim=0).square() / self._inverse.diagonal())[at[:, 0]]
        else:
            columns = self._weight.mT[at]  # (units, inputs of a unit, outputs)
            blocks = torch.linalg.cholesky(self._inverse[at[:, :, None], at[:, None, :]])
            found = torch.linalg.solve_triangular(blocks, columns, upper=False).square().sum((1, 2))
        costs = np.zeros(self._num_units)
        costs[self._present] = (found - self._penalty).cpu().numpy()
        return np.where(np.abs(costs) > self._smallest, costs, 0.0)

    def remove(self, unit: int) -> None:
        """Remove the inputs of a unit from the weight and from the inverse."""
        row = int(np.searchsorted(self._present, unit))
        if row == len(self._present) or self._present[row] != unit:
            return
        removed = self._positions[row]
        across = self._inverse[removed]
        change = torch.linalg.solve(across[:, removed], across)
        self._weight.addmm_(self._weight[:, removed], change, alpha=-1)
        self._inverse.addmm_(across.mT, change, alpha=-1)
        self._weight[:, removed] = 0
        self._inverse[removed] = 0
        self._inverse[:, removed] = 0
        self._inverse[removed, removed] = 1
        self._penalty[row] = 0
        self._is_left[row] = False
        if 2 * np.count_nonzero(self._is_left) < len(self._is_left):
            self._keep_only(np.flatnonzero(self._is_left))

    def _keep_only(self, rows: IntArray) -> None:
        """Drop all inputs except those of some units: updates read no others."""
        device = self._inverse.device
        before = self._positions.cpu().numpy()[rows]
        read, positions = np.unique(before, return_inverse=True)
        inputs, units = torch.from_numpy(read).to(device), torch.from_numpy(rows).to(device)
        self._positions = torch.from_numpy(positions.reshape(before.shape)).to(device)
        self._inverse, self._weight = self._inverse[inputs][:, inputs], self._weight[:, inputs]
        self._penalty = self._penalty[units]
        self._present, self._is_left = self._present[rows], np.ones(len(rows), dtype=bool)


def _spectrum(factor: Tensor) -> tuple[float, Tensor, Tensor]:
    """The largest singular value, all of them relative to it, and the right singular vectors."""
    _, values, vh = torch.linalg.svd(factor, full_matrices=False)
    scale = float(values.max()) if len(values) else 0.0
    return (scale, values / scale, vh) if scale > 0 else (0.0, torch.zeros_like(values), vh)


def _scoring_ridge(values: Tensor, vh: Tensor, samples: int) -> float:
    """The ridge with the least expected error if every input is predicted from all others.

    The candidates and the criterion, generalised cross-validation, are those of the compensation (`solve`). There the
    ridge is chosen for each predicted input; the inverse of the moments has one for all of them. It has the least
    geometric mean of the errors: an arithmetic mean would not count inputs that the others determine. It has no lower
    bound for the movement by training, with which duplicates would not be free.

    Args:
        values: (directions,) singular values of the inputs, the largest is 1; all zero for inputs of zero.
        vh: (directions, inputs) their right singular vectors.
        samples: degrees of freedom of the samples.
    """
    ridges = values.new_tensor(RIDGES)  # with the smallest one, 1e-10, downdates leave six exact digits
    squares, loads = values.square()[:, None], vh.square().mT
    outside = vh.shape[1] - vh.shape[0]  # directions in which there is no sample
    rest = (1 - loads.sum(1, keepdim=True)).clamp_min(0) * (outside > 0)
    shrunk = 1 / (squares + ridges)  # (directions, candidates)
    inverse = loads @ shrunk + rest / ridges  # (inputs, candidates): diagonals of the inverse, and of its square
    inverse_square = loads @ shrunk.square() + rest / ridges.square()
    errors = loads @ (squares * shrunk.square()) / inverse.square()
    freedom = vh.shape[1] - 1 - ridges * (shrunk.sum(0) + outside / ridges - inverse_square / inverse)
    errors = errors / (1 - freedom / samples).clamp_min(RIDGES[0]).square()
    sizes = loads @ squares
    expected = errors + _ROUNDING * sizes
    return float(ridges[expected[sizes[:, 0] > _ROUNDING].log().sum(0).argmin()])
