"""Normalizers make the scores of one group comparable with those of another.

All take the float64 scores x of one group. If the divisor is zero, the result is zero for all units.
Differences below 2**-32 of the largest score are rounding noise of the sums, and count as zero. Otherwise noise would
rank equally important channels, and backends would choose different ones.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from gsprune.arrays import Float64Array

__all__ = ["NORMALIZERS", "SPELLINGS"]

_NOISE = 2.0**-32


def _standardization(scores: Float64Array) -> Float64Array:
    """(x - min(x)) / (max(x) - min(x)), in [0, 1]."""
    raised = _difference(scores, float(scores.min()))
    return _ratio(raised, float(raised.max()))


def _gaussian(scores: Float64Array) -> Float64Array:
    """(x - mean(x)) / σ(x), with the unbiased σ(x)² = Σ (x - mean(x))² / (n - 1)."""
    centred = _difference(scores, float(scores.mean()))
    if len(scores) < 2:
        return centred
    return _ratio(centred, float(np.sqrt(np.square(centred).sum() / (len(scores) - 1))))


def _lamp(scores: Float64Array) -> Float64Array:
    """y_u = x_u / Σ_{v: x_v >= x_u} x_v, with the units in ascending order; on a tie the higher index comes first.

    The least important unit gets its share of the whole group, the most important one gets 1.

    Source: Lee et al. 2021, Layer-adaptive sparsity for the magnitude-based pruning, sec. 3.1,
    https://arxiv.org/abs/2010.07611 (there x = w², one unit per weight)
    """
    # Sort in float32, so that noise does not order equal scores.
    order = np.lexsort((-np.arange(len(scores)), scores.astype(np.float32)))
    ascending = scores[order]
    remaining = np.cumsum(ascending[::-1])[::-1]
    normalized = np.zeros_like(scores)
    normalized[order] = np.divide(ascending, remaining, out=np.zeros_like(ascending), where=remaining != 0)
    return normalized


def _ratio(scores: Float64Array, divisor: float) -> Float64Array:
    return np.zeros_like(scores) if divisor == 0 else scores / divisor


def _difference(scores: Float64Array, reference: float) -> Float64Array:
    step = _NOISE * float(np.abs(scores).max())
    difference = scores - reference
    return np.asarray(np.rint(difference / step) * step) if step > 0 and np.isfinite(step) else difference


NORMALIZERS: dict[str, Callable[[Float64Array], Float64Array]] = {
    "none": lambda x: x,
    "sum": lambda x: _ratio(x, x.sum()),
    "mean": lambda x: _ratio(x, x.mean()),
    "max": lambda x: _ratio(x, x.max()),
    "standardization": _standardization,
    "gaussian": _gaussian,
    "lamp": _lamp,
}
"""Name -> function from (units,) float64 to (units,) float64 of one group."""

SPELLINGS = {"standardisation": "standardization"}
"""Other spellings of a normalizer's name."""
