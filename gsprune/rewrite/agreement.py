"""Whether a sliced network's outputs are those of the masked one.

Both add the same numbers in another order, so they may differ by what rounding leaves. How much that is depends on the
network: where terms cancel (the value of an agent that has not learned), the output is rounded as its terms were, and
not as finely as itself. So a difference beyond a tight tolerance is no verdict, only a doubt, and both are run again in
float64: what rounding left shrinks by the ratio of the precisions, what is wrong stays. Outputs in
float64 are judged the same way: a constant in float32 on the way (a scale by `torch.full`) rounds them as itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from gsprune.tracing.outputs import tensors_in

__all__ = ["DoubtError", "compare", "settle"]

# Largest difference that is none, by dtype, relative to an output's largest entry. In float32, 60 steps of 15 of
# torchvision's classifiers differed by 1.9e-6 at most (median 4e-7). Below, sums are in float32, but layers round.
_CLOSE = {
    torch.float64: 1e-9,
    torch.complex128: 1e-9,
    torch.float32: 1e-5,
    torch.complex64: 1e-5,
    torch.float16: 4e-3,
    torch.bfloat16: 3e-2,
}
_WIDE = (torch.float64, torch.complex128)
# What float64 itself rounds is not settled by more of it. Outputs below this are compared with it.
_SMALLEST_SCALE = 1e-4
# What is left in float64 of a difference that rounding made in float32: 2**-29, and 2**-13 to spare.
_VANISHED = 1e-5
# The tolerance where float64 cannot settle a doubt.
_COARSE = {
    torch.float64: 1e-9,
    torch.complex128: 1e-9,
    torch.float32: 1e-4,
    torch.complex64: 1e-4,
    torch.float16: 2e-2,
    torch.bfloat16: 1e-1,
}


@dataclass(frozen=True, slots=True)
class _Gap:
    """How far one output is from the masked network's, over the entries that the latter has finite."""

    difference: float
    scale: float
    dtype: torch.dtype

    def beyond(self, tolerance: float, smallest_scale: float = 0.0) -> bool:
        return not self.difference <= tolerance * max(self.scale, smallest_scale)

    def in_doubt(self) -> bool:
        """Whether the difference is more than rounding in the output's own precision leaves as a rule."""
        return self.beyond(_CLOSE.get(self.dtype, 1e-5), _SMALLEST_SCALE if self.dtype in _WIDE else 0.0)

    def vanished_to(self, after: _Gap) -> bool:
        """Whether rounding made the difference, as `after`, with everything in float64, is none."""
        if self.dtype in _WIDE and not after.in_doubt():
            return True
        return after.difference <= _VANISHED * self.difference

    def __str__(self) -> str:
        return f"an output differs from the masked network's by {self.difference:.2g} at a scale of {self.scale:.2g}"


class DoubtError(Exception):
    """Outputs differ by more than rounding leaves as a rule.

    Attributes:
        gaps: one per output.
    """

    def __init__(self, gaps: Sequence[_Gap]) -> None:
        super().__init__("outputs differ")
        self.gaps = gaps


def compare(got: Any, expected: Any) -> str | None:
    """How the outputs of two networks differ; None where they agree as closely as their precision lets one expect.

    Args:
        got: whatever the sliced network returned.
        expected: the same of the masked one; entries that are not finite there are not compared.

    Raises:
        DoubtError: they differ by more.
    """
    gaps = _gaps(got, expected)
    if isinstance(gaps, str):
        return gaps
    if any(gap.in_doubt() for gap in gaps):
        raise DoubtError(gaps)
    return None


def settle(doubt: DoubtError, got: Any, expected: Any) -> str | None:
    """Whether what was in doubt is wrong, and how; None where it was rounding.

    Args:
        doubt: what the outputs in their own precision came to.
        got: those of the sliced network in float64; None where there are none.
        expected: the same of the masked one.
    """
    gaps = None if got is None or expected is None else _gaps(got, expected)
    if gaps is None or isinstance(gaps, str) or len(gaps) != len(doubt.gaps):
        coarse = (gap for gap in doubt.gaps if gap.beyond(_COARSE.get(gap.dtype, 1e-4), _SMALLEST_SCALE))
        return next(map(str, coarse), None)
    for before, gap in zip(doubt.gaps, gaps, strict=True):
        if before.in_doubt() and not before.vanished_to(gap):
            return f"{gap}, in float64"
    return None


def _gaps(got: Any, expected: Any) -> list[_Gap] | str:
    """One per output; a phrase where numbers or shapes of outputs differ."""
    ours, theirs = _comparable(got), _comparable(expected)
    if len(ours) != len(theirs):
        return f"the outputs hold {len(ours)} tensors, the masked network's {len(theirs)}"
    gaps = []
    for a, b in zip(ours, theirs, strict=True):
        if a.shape != b.shape:
            return f"an output has shape {tuple(a.shape)}, the masked network's {tuple(b.shape)}"
        if b.numel():
            gaps.append(_gap(a, b))
    return gaps


def _gap(a: Tensor, b: Tensor) -> _Gap:
    scale, difference = float(b.abs().max()), float((a - b).abs().max())
    if not difference < float("inf"):
        finite = b.isfinite()
        a, b = a[finite], b[finite]
        if not b.numel():
            return _Gap(0.0, 0.0, b.dtype)
        scale, difference = float(b.abs().max()), float((a - b).abs().max())
    return _Gap(difference, scale, b.dtype)


def _comparable(output: Any) -> list[Tensor]:
    return [tensor for tensor in tensors_in(output) if tensor.is_floating_point() or tensor.is_complex()]
