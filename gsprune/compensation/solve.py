"""The map that predicts lost inputs from kept ones: ridge regression with a ridge chosen per predicted input."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from gsprune.compensation.moments import Moments

__all__ = ["Map", "solve", "solve_constant"]

# Candidates for the ridge, relative to the largest eigenvalue of the kept inputs' moments.
# Measured on four small networks trained on scikit-learn's digits (600 images, one seed, 30 and 50 % of the channels).
# A fixed ridge of 1e-5 or 1e-4 changes the KL by less than 3 %, except behind a flattened picture, where it has 0.2 to
# 1.1 times as much. 1e-2 has 0.3 to 1.9 times as much. A fixed ridge of that size misses exact dependencies.
RIDGES = (1e-10, 1e-8, 1e-7, 1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1.0)
# The ridge of exact dependencies, relative to the largest eigenvalue: the smallest that float64 resolves.
_EXACT_RIDGE = 1e-26
# Assumed movement of each kept input by training until the next step, relative to the root mean square of all of them.
# Without it, inputs that are nearly always zero get coefficients that grow at every step: a PPO agent on MinAtar's
# Space Invaders had head weights of 0.7, 57 and 1,000,000 after three steps of 2 %, and its return fell from 30 to 0.
# With 0.03, 0.1 and 0.3, the weights of the actor after 86 steps down to half of the channels have a root mean square
# of 0.46, 0.18 and 0.15 (0.10 without compensation), and the KL of all steps adds up to 0.13, 0.15 and 0.25 (1.06).
_MOVEMENT = 0.1
# An exact dependency leaves at most `_EXACT_SHARE` of the mean square unexplained (the rounding of float32). Its
# coefficients are at most `_EXACT_LENGTH` times as long as those of the dense network. If they are longer than those,
# kept inputs of the mean power must not make the prediction more than `_EXACT_SIZE` times as large as the lost input:
# inputs that are seldom above zero may fit each other by chance.
# Without the last condition, one step multiplied the weight of the critic for a unit with a root mean square of 0.0004
# by 38, in a PPO agent of width 3 on MinAtar's Space Invaders (the mean of its units was 1.1).
_EXACT_SHARE, _EXACT_LENGTH, _EXACT_SIZE = 1e-12, 10.0, 30.0
# Lower bound of the degrees of freedom that the coefficients leave, as a share of the samples.
_MIN_FREEDOM = 1e-8
# A mean square below this share of the input's own is rounding.
_ROUNDING = 1e-30


@dataclass(frozen=True)
class Map:
    """r = D z + c: the lost part of the inputs as a function of the kept inputs.

    Attributes:
        weight: (groups, inputs, kept) float64, D; None if there is only the constant.
        constant: (groups, inputs) float64, c; None without a constant.
        lost: (groups, inputs) float64, mean square of r.
        unexplained: (groups, inputs) float64, mean square of r - D z - c.
    """

    weight: Tensor | None
    constant: Tensor | None
    lost: Tensor
    unexplained: Tensor


def solve(moments: Moments, has_constant: bool, lengths: Tensor | float = 1.0) -> Map:
    """The map with the least expected error on new samples.

        D, c = argmin sum |r - D z - c|^2 + ridge |D|^2

    D = 0 leaves the kept channels as they are. The ridge of each input is the candidate with the least generalised
    cross-validation error (Golub, Heath and Wahba 1979, https://doi.org/10.1080/00401706.1979.10489751). It is at least
    what the movement of the kept inputs by training adds to the error: sum |r - D (z + noise)|^2 has the expectation
    sum |r - D z|^2 + samples * variance * |D|^2. An exact dependency has no ridge. With as many coefficients as
    samples, every input fits exactly, so only multiples of a single kept input (duplicates) count as exact there.

    Args:
        moments: moments of at least one sample.
        has_constant: True if there may be a c.
        lengths: (inputs,) float64, Euclidean length of the coefficients of each input in the dense network.
    """
    factor, end = moments.factor, 1 + moments.num_kept
    start = int(has_constant)  # below the first row, the mean of every column is subtracted
    kept, lost = factor[:, start:end, 1:end], factor[:, start:end, end:]
    u, values, vh = torch.linalg.svd(kept, full_matrices=False)
    projected = u.mT @ lost  # (groups, directions, inputs)
    unreachable = (lost - u @ projected).square().sum(1) + factor[:, end:, end:].square().sum(1)  # by any combination
    squares = values.square()[:, :, None]
    # Means are included: constant kept inputs vary only by rounding, which must not predict anything.
    power = factor[:, :, 1:end].square().mean(2).sum(1)  # (groups,)
    ridges = _ridges(squares, _MOVEMENT**2 * power)
    shrunk = ridges[:, None, :] / (squares + ridges[:, None, :])  # (groups, directions, candidates)
    powers, total = projected.square().mT, factor[:, :, end:].square().sum(1)
    errors = unreachable[:, :, None] + powers @ shrunk.square() + _ROUNDING * total[:, :, None]
    freedom = moments.samples - (1 - shrunk).sum(1) - int(has_constant)  # (groups, candidates)
    generalised = errors / (freedom / moments.samples).clamp_min(_MIN_FREEDOM).square()[:, None, :]
    norms = (powers @ (squares / (squares + ridges[:, None, :1]).square())).squeeze(2)
    is_exact = (generalised[:, :, 0] <= _EXACT_SHARE * total) & _is_sound(norms.sqrt(), power, total, lengths)
    # As many coefficients as samples fit anything. Measured on an MLP trained on scikit-learn's digits (256 images, 268
    # inputs kept): KL 0.0002 instead of 0.0023.
    has_evidence = freedom[:, :1] > 0.5
    is_exact &= has_evidence
    chosen = torch.where(is_exact, 0, 1 + generalised[:, :, 1:].argmin(2))  # (groups, inputs)
    ridge = ridges.gather(1, chosen)
    weight = (values[:, :, None] / (squares + ridge[:, None, :]) * projected).mT @ vh
    unexplained = errors.gather(2, chosen[:, :, None]).squeeze(2)
    if not has_evidence.all():
        multiple, rest = _multiples(kept, lost)
        rest = rest + factor[:, end:, end:].square().sum(1)
        is_multiple = (rest <= _EXACT_SHARE * total) & _is_sound(multiple.norm(dim=2), power, total, lengths)
        weight = torch.where(is_multiple[:, :, None], multiple, weight)
        unexplained = torch.where(is_multiple, rest, unexplained)
    constant = None
    if has_constant:
        predicted = (weight @ factor[:, 0, 1:end, None]).squeeze(2)
        constant = (factor[:, 0, end:] - predicted) / factor[:, :1, 0]
    return Map(weight, constant, moments.mean_square(), unexplained / moments.samples)


def _multiples(kept: Tensor, lost: Tensor) -> tuple[Tensor, Tensor]:
    """(groups, inputs, kept) coefficients that predict each input from the best single kept input, and their errors.

    `kept` and `lost` are (groups, rows, kept) and (groups, rows, inputs).
    """
    sizes = kept.square().sum(1).clamp_min(torch.finfo(kept.dtype).tiny)[:, :, None]
    products = kept.mT @ lost
    best = (products.square() / sizes).argmax(1, keepdim=True)
    coefficients = (products / sizes).gather(1, best)
    weight = torch.zeros_like(products).scatter(1, best, coefficients).mT
    nearest = kept.gather(2, best.expand(-1, kept.shape[1], -1))
    return weight, (lost - nearest * coefficients).square().sum(1)


def _is_sound(norms: Tensor, power: Tensor, total: Tensor, lengths: Tensor | float) -> Tensor:
    """(groups, inputs) True if coefficients of these lengths may be those of an exact dependency.

    `power` is the mean square of the kept inputs and `total` that of each lost one, both summed over the samples.
    """
    is_short = norms <= 1.01 * lengths  # duplicates have a length of 1, but for rounding
    fits_size = norms * power.sqrt()[:, None] <= _EXACT_SIZE * total.sqrt()
    return is_short | (fits_size & (norms <= _EXACT_LENGTH * lengths))


def _ridges(squares: Tensor, movement: Tensor) -> Tensor:
    """(groups, candidates): the ridge of exact dependencies, then the others, which are at least `movement`.

    `squares` are the eigenvalues of the kept inputs' moments, (groups, directions, 1).
    """
    largest = squares.amax((1, 2))[:, None]
    ridges = torch.maximum(largest * squares.new_tensor(RIDGES), movement[:, None])
    return torch.cat([largest * _EXACT_RIDGE, ridges], 1) + torch.finfo(squares.dtype).tiny


def solve_constant(moments: Moments) -> Map:
    """The constant alone: c = mean of r, where padding counts as r = 0."""
    factor = moments.factor[:, :, 1 + moments.num_kept :]
    unexplained = factor[:, 1:].square().sum(1) / moments.samples
    return Map(None, factor[:, 0] / moments.factor[:, :1, 0], moments.mean_square(), unexplained)
