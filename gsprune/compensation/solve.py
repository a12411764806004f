"""The map that predicts lost inputs from kept ones: ridge regression with a ridge chosen per predicted input."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from gsprune.compensation.moments import Moments

__all__ = ["Map", "solve", "solve_constant"]

# Candidates for the ridge, relative to the largest eigenvalue of the kept inputs' moments. The smallest one is what
# float64 resolves, so that an exact dependency is found exactly.
# Measured on four small networks trained on scikit-learn's digits (600 images, one seed, 30 and 50 % of the channels).
# A fixed ridge of 1e-5 or 1e-4 changes the KL by less than 3 %, except behind a flattened picture, where it has 0.2 to
# 1.1 times as much. 1e-2 has 0.3 to 1.9 times as much. A fixed ridge of that size misses exact dependencies.
RIDGES = (1e-26, 1e-22, 1e-18, 1e-15, 1e-12, 1e-10, 1e-8, 1e-7, 1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1.0)
# The least ridge is this times the share that stays unexplained times the kept inputs' mean square. Cross-validation
# alone takes a ridge next to zero where many inputs meet few samples. A kept channel that fires once on the calibration
# data then gets a weight in the thousands.
# Measured on a Nature agent (512 frames, steps of 10 to 50 %): with 10 the KL is 0.005 to 0.9 times that with 0. With
# 100 it is up to a third smaller or larger than with 10, and 1.2 times as large on a ResNet on digits.
LEAST_RIDGE = 10.0
# A mean square below this share of the input's own is rounding.
_ROUNDING = 1e-30


@dataclass(frozen=True)
class Map:
    """r = D z + c: what is lost as a function of what is left.

    Attributes:
        weight: (groups, inputs, kept) float64, D; None where there is only the constant.
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

        D, c = argmin sum |r - D z - c|^2 + ridge |D|^2

    D = 0 leaves the kept channels as they are. The ridge of each input is the candidate with the least generalised
    cross-validation error (Golub, Heath and Wahba 1979, https://doi.org/10.1080/00401706.1979.10489751), but not below
    `LEAST_RIDGE`.

    Args:
        moments: of at least one sample.
        has_constant: whether there may be a c.
    """
    factor, end = moments.factor, 1 + moments.num_kept
    start = int(has_constant)  # below the first row, every column has its mean taken out
    left, lost = factor[:, start:end, 1:end], factor[:, start:end, end:]
    u, values, vh = torch.linalg.svd(left, full_matrices=False)
    projected = u.mT @ lost  # (groups, directions, inputs)
    # No combination of the kept inputs reaches this.
    beyond = (lost - u @ projected).square().sum(1) + factor[:, end:, end:].square().sum(1)
    squares = values.square()[:, :, None]
    ridges = squares.amax((1, 2))[:, None] * squares.new_tensor(RIDGES) + torch.finfo(squares.dtype).tiny
    shrunk = ridges[:, None, :] / (squares + ridges[:, None, :])  # (groups, directions, candidates)
    errors = beyond[:, :, None] + projected.square().mT @ shrunk.square()
    errors = errors + _ROUNDING * factor[:, :, end:].square().sum(1)[:, :, None]
    freedom = 1 - ((1 - shrunk).sum(1) + has_constant) / moments.samples
    scores = errors / freedom.clamp_min(1e-3).square()[:, None, :]
    share = (scores / errors[:, :, -1:].clamp_min(torch.finfo(errors.dtype).tiny)).clamp_max(1)
    least = LEAST_RIDGE * share * (squares.mean((1, 2)) / moments.samples)[:, None, None]
    chosen = scores.masked_fill(ridges[:, None, :] < least, torch.inf).argmin(2)  # (groups, inputs)
    ridge = ridges.gather(1, chosen)
    weight = (values[:, :, None] / (squares + ridge[:, None, :]) * projected).mT @ vh
    constant = None
    if has_constant:
        predicted = (weight @ factor[:, 0, 1:end, None]).squeeze(2)
        constant = (factor[:, 0, end:] - predicted) / factor[:, :1, 0]
    unexplained = errors.gather(2, chosen[:, :, None]).squeeze(2) / moments.samples
    return Map(weight, constant, _mean_square(moments), unexplained)


def solve_constant(moments: Moments) -> Map:
    """The constant alone: c = mean of r, where padding counts as r = 0."""
    factor = moments.factor[:, :, 1 + moments.num_kept :]
    unexplained = factor[:, 1:].square().sum(1) / moments.samples
    return Map(None, factor[:, 0] / moments.factor[:, :1, 0], _mean_square(moments), unexplained)


def _mean_square(moments: Moments) -> Tensor:
    return moments.factor[:, :, 1 + moments.num_kept :].square().sum(1) / moments.samples
