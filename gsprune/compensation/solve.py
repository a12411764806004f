"""The map that predicts lost inputs from kept ones: ridge regression with a ridge chosen per predicted input."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from gsprune.compensation.moments import Moments

__all__ = ["Map", "solve", "solve_bias"]

# Candidates for the ridge, relative to the largest eigenvalue of the kept inputs' moments. The smallest one is what
# float64 resolves, so that an exact dependency is found exactly.
RIDGES = (1e-26, 1e-22, 1e-18, 1e-15, 1e-12, 1e-10, 1e-8, 1e-7, 1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1.0)
# Mean squares below this share of an input's own are rounding.
_ROUNDING = 1e-30


@dataclass(frozen=True)
class Map:
    """r = D z + c, what is lost as a function of what is left.

    Attributes:
        weight: (groups, inputs, kept) float64, D; None where only the constant is used.
        constant: (groups, inputs) float64, c; None without a constant.
        lost: (groups, inputs) float64, mean square of r.
        unexplained: (groups, inputs) float64, mean square of r - D z - c.
    """

    weight: Tensor | None
    constant: Tensor | None
    lost: Tensor
    unexplained: Tensor


def solve(moments: Moments, has_constant: bool) -> Map:
    """The map with the least expected error on new samples.

        D = argmin sum |r - D z - c|^2 + ridge |D|^2

    The ridge of each input is the candidate with the least generalised cross-validation error (Golub, Heath and Wahba
    1979, https://doi.org/10.1080/00401706.1979.10489751).

    Args:
        moments: of at least one sample.
        has_constant: whether there may be a c.
    """
    factor, kept = moments.factor, moments.kept
    centred = factor[:, int(has_constant) :, 1:]  # below the first row, every column has its mean taken out
    left, lost = centred[:, :, :kept], centred[:, :, kept:]
    u, values, vh = torch.linalg.svd(left, full_matrices=False)
    projected = u.mT @ lost  # (groups, directions, inputs)
    beyond = (lost - u @ projected).square().sum(1)  # no combination of z reaches this
    squares = values.square()[:, :, None]
    ridges = squares.amax((1, 2))[:, None] * squares.new_tensor(RIDGES) + torch.finfo(squares.dtype).tiny
    shrunk = ridges[:, None, :] / (squares + ridges[:, None, :])  # (groups, directions, candidates)
    errors = beyond[:, :, None] + projected.square().mT @ shrunk.square()
    errors = errors + _ROUNDING * factor[:, :, 1 + kept :].square().sum(1)[:, :, None]
    freedom = 1 - ((1 - shrunk).sum(1) + has_constant) / moments.samples
    chosen = (errors / freedom.clamp_min(1e-3).square()[:, None, :]).argmin(2)  # (groups, inputs)
    ridge = ridges.gather(1, chosen)
    weight = (values[:, :, None] / (squares + ridge[:, None, :]) * projected).mT @ vh
    constant = None
    if has_constant:
        constant = (factor[:, 0, 1 + kept :] - (weight @ factor[:, 0, 1 : 1 + kept, None]).squeeze(2)) / factor[
            :, :1, 0
        ]
    unexplained = errors.gather(2, chosen[:, :, None]).squeeze(2) / moments.samples
    return Map(weight, constant, _lost(moments), unexplained)


def solve_bias(moments: Moments) -> Map:
    """The constant alone."""
    factor, lost = moments.factor[:, :, 1 + moments.kept :], _lost(moments)
    unexplained = factor[:, 1:].square().sum(1) / moments.samples
    return Map(None, factor[:, 0] / moments.factor[:, :1, 0], lost, unexplained)


def _lost(moments: Moments) -> Tensor:
    return moments.factor[:, :, 1 + moments.kept :].square().sum(1) / moments.samples
