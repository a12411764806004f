"""Making the scores of one group comparable with those of another.

All work on the float64 scores x of one group. Where a divisor is zero, all the group's scores are the same and become
zero. A difference of two scores below 2**-32 of the largest is rounding noise of the sums behind them and taken for
zero: otherwise equally important channels would be told apart by it, and every backend would choose others.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from gsprune.importance.base import FloatArray

__all__ = ["NORMALIZERS", "SPELLINGS"]

_NOISE = 2.0**-32


def _none(scores: FloatArray) -> FloatArray:
    """Y = x."""
    return scores


def _sum(scores: FloatArray) -> FloatArray:
    """Y = x / Σ x."""
    return _ratio(scores, float(scores.sum()))


def _mean(scores: FloatArray) -> FloatArray:
    """Y = x / mean(x)."""
    return _ratio(scores, float(scores.mean()))


def _max(scores: FloatArray) -> FloatArray:
    """Y = x / max(x)."""
    return _ratio(scores, float(scores.max()))


def _standardization(scores: FloatArray) -> FloatArray:
    """Y = (x - min(x)) / (max(x) - min(x)), so that y is in [0, 1]."""
    raised = _difference(scores, float(scores.min()))
    return _ratio(raised, float(raised.max()))


def _gaussian(scores: FloatArray) -> FloatArray:
    """Y = (x - mean(x)) / σ(x) with the unbiased σ(x)² = Σ (x - mean(x))² / (n - 1)."""
    centred = _difference(scores, float(scores.mean()))
    if len(scores) < 2:
        return centred
    return _ratio(centred, float(np.sqrt(np.square(centred).sum() / (len(scores) - 1))))


def _lamp(scores: FloatArray) -> FloatArray:
    """y_u = x_u / Σ_{v: x_v >= x_u} x_v, with the units in ascending order, of equal ones the higher index first.

    The least important unit gets its share of the whole group, the most important one gets 1.

    Source: Lee et al. 2021, Layer-adaptive sparsity for the magnitude-based pruning, sec. 3.1,
    https://arxiv.org/abs/2010.07611 (there x = w², one unit per weight)
    """
    # The noise of equal scores must not decide which of them comes first: sort what float32 can tell apart.
    order = np.lexsort((-np.arange(len(scores)), scores.astype(np.float32)))
    ascending = scores[order]
    remaining = np.cumsum(ascending[::-1])[::-1]
    normalized = np.zeros_like(scores)
    normalized[order] = np.divide(ascending, remaining, out=np.zeros_like(ascending), where=remaining != 0)
    return normalized


def _ratio(scores: FloatArray, divisor: float) -> FloatArray:
    return np.zeros_like(scores) if divisor == 0 else scores / divisor


def _difference(scores: FloatArray, reference: float) -> FloatArray:
    step = _NOISE * float(np.abs(scores).max())
    difference = scores - reference
    return np.asarray(np.rint(difference / step) * step) if step > 0 and np.isfinite(step) else difference


NORMALIZERS: dict[str, Callable[[FloatArray], FloatArray]] = {
    "none": _none,
    "sum": _sum,
    "mean": _mean,
    "max": _max,
    "standardization": _standardization,
    "gaussian": _gaussian,
    "lamp": _lamp,
}
"""Name -> function from (units,) float64 to (units,) float64."""

SPELLINGS = {"standardisation": "standardization"}
"""Other spellings of a normalizer's name."""
