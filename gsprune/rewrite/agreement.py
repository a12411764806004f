"""Compares a sliced network's outputs with those of the masked network.

Both networks add the same numbers in another order, so their outputs may differ by rounding. The size of that depends
on the network: if large terms cancel (the value of an agent that has not learned), the output has the rounding error of
the terms. So a difference beyond a tight tolerance is only a doubt. Then both networks run again in float64, where
rounding shrinks by the ratio of the precisions and an error does not. Outputs in float64 may be in doubt, too, because
the code may compute with a float32 constant (a scale by `torch.full`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from gsprune.tracing.outputs import tensors_in

__all__ = ["DoubtError", "coarse_tolerance", "compare", "settle"]

# By dtype, relative to an output's largest entry: differences up to the first number raise no doubt. Differences up to
# the second number are accepted if float64 cannot settle a doubt. In float32, 60 steps of 15 of torchvision's
# classifiers differed by 1.9e-6 at most (median 4e-7). In lower precision, sums are in float32, but layers round.
_TOLERANCES = {
    torch.float64: (1e-9, 1e-9),
    torch.complex128: (1e-9, 1e-9),
    torch.float32: (1e-5, 1e-4),
    torch.complex64: (1e-5, 1e-4),
    torch.float16: (4e-3, 2e-2),
    torch.bfloat16: (3e-2, 1e-1),
}
_OTHER_TOLERANCES = _TOLERANCES[torch.float32]
_WIDE = (torch.float64, torch.complex128)
# A run in float64 cannot settle rounding in float64. So smaller outputs are judged as if they had this scale.
_SMALLEST_SCALE = 1e-4
# The part of a rounding difference that may remain in float64: 2**-29 for float32, with a margin of 2**13.
_VANISHED = 1e-5


@dataclass(frozen=True, slots=True)
class _Gap:
    """The distance of one output from the masked network's, over the entries that are finite there."""

    difference: float
    scale: float
    dtype: torch.dtype

    def beyond(self, tolerance: float, smallest_scale: float = 0.0) -> bool:
        return not self.difference <= tolerance * max(self.scale, smallest_scale)

    def in_doubt(self) -> bool:
        """True if the difference is larger than what rounding in the output's own precision usually leaves."""
        close, _ = _TOLERANCES.get(self.dtype, _OTHER_TOLERANCES)
        return self.beyond(close, _SMALLEST_SCALE if self.dtype in _WIDE else 0.0)

    def vanished_to(self, after: _Gap) -> bool:
        """True if rounding made the difference, because it vanishes in `after`, where everything is float64."""
        if self.dtype in _WIDE and not after.in_doubt():
            return True
        return after.difference <= _VANISHED * self.difference

    def __str__(self) -> str:
        return f"an output differs from the masked network's by {self.difference:.2g} at a scale of {self.scale:.2g}"


class DoubtError(Exception):
    """Outputs differ by more than what rounding usually leaves. There is one gap per output."""

    def __init__(self, gaps: Sequence[_Gap]) -> None:
        super().__init__("outputs differ")
        self.gaps = gaps


def coarse_tolerance(dtype: torch.dtype) -> float:
    """A difference of intermediate values, relative to the largest, that rounding does not make."""
    return 10 * _TOLERANCES.get(dtype, _OTHER_TOLERANCES)[1]


def compare(got: Any, expected: Any) -> str | None:
    """The difference between the outputs of the sliced and the masked network; None if they agree.

    Entries that are not finite in the masked network's outputs are not compared.

    Raises:
        DoubtError: outputs differ by more than rounding usually does.
    """
    gaps = _gaps(got, expected)
    if isinstance(gaps, str):
        return gaps
    if any(gap.in_doubt() for gap in gaps):
        raise DoubtError(gaps)
    return None


def settle(doubt: DoubtError, got: Any, expected: Any) -> str | None:
    """The error in outputs that were in doubt; None if the doubt came from rounding.

    `got` and `expected` are the outputs of the sliced and the masked network in float64, None if a run failed.
    """
    gaps = None if got is None or expected is None else _gaps(got, expected)
    if gaps is None or isinstance(gaps, str) or len(gaps) != len(doubt.gaps):
        tolerances = [_TOLERANCES.get(gap.dtype, _OTHER_TOLERANCES)[1] for gap in doubt.gaps]
        gaps_and_tolerances = zip(doubt.gaps, tolerances, strict=True)
        return next((str(gap) for gap, coarse in gaps_and_tolerances if gap.beyond(coarse, _SMALLEST_SCALE)), None)
    for before, gap in zip(doubt.gaps, gaps, strict=True):
        if before.in_doubt() and not before.vanished_to(gap):
            return f"{gap}, in float64"
    return None


def _gaps(got: Any, expected: Any) -> list[_Gap] | str:
    """The gap of each output; a description of the difference if numbers or shapes of outputs differ."""
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
    return [tensor.detach() for tensor in tensors_in(output) if tensor.is_floating_point() or tensor.is_complex()]
