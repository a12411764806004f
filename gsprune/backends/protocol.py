"""The protocol of a backend. All backends give the same results: they choose the same units, bit for bit."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal, Protocol

from torch import Tensor

from gsprune.arrays import BoolArray, Float32Array, Float64Array, IntArray

__all__ = ["Backend", "BackendName", "Pattern", "Rewrite"]

BackendName = Literal["auto", "cpp", "triton", "torch"]

Pattern = tuple[tuple[int, IntArray], ...]
"""The kept part of a tensor: (axis, ascending int64 positions without repeats), each axis at most once.

Share one pattern between a weight, its gradient and its moments, because every pattern is resolved once per call.
"""

Rewrite = Callable[
    [Sequence[Tensor], Sequence[Pattern], Sequence[int], int, Sequence[tuple[dict[Any, Any], Any, Any]]], None
]


class Backend(Protocol):
    """A provider of sums, selection and slicing."""

    @property
    def name(self) -> str:
        """``cpp``, ``triton`` or ``torch``."""

    def axis_sums(
        self,
        tensors: list[Tensor],
        axes: list[tuple[int, ...]],
        others: Sequence[Tensor | None] | None,
        statistic: str,
    ) -> Float64Array:
        """Sums over all axes but one, for each given axis of every tensor, accumulated in float64.

        Args:
            tensors: w; float32, float64, bfloat16 or float16, at least one dimension, any strides.
            axes: the axes of each tensor, in [0, ndim), each at most once.
            others: g for each tensor, with the same shape and dtype; None for statistics of w only.
            statistic: the summand: "abs" |w|, "square" w², "product" w g, "abs_product" |w g| or "square_product"
                (w g)².

        Returns:
            the (shape[axis],) sums of all axes, concatenated by tensor, then by axis.

        Raises:
            ValueError: a dtype, shape or axis does not fit; the message names the tensor.
        """

    def select_groups(self, scores: Float32Array, first_unit: IntArray, kept: IntArray) -> BoolArray:
        """The units of every group with the highest scores. On a tie the lower index is kept.

        Args:
            scores: (units,) float32 without NaN, concatenated by group.
            first_unit: (groups + 1,) int64, index of each group's first unit.
            kept: (groups,) int64, number of units that each group keeps.

        Returns:
            (units,) bool, True for kept units.

        Raises:
            ValueError: a score is NaN, or a group has fewer units than it should keep.
        """

    def slice(self, tensors: Sequence[Tensor], patterns: Sequence[Pattern], pattern_of: Sequence[int]) -> list[Tensor]:
        """The kept part of every tensor, in new tensors that own their storage.

        Args:
            tensors: any dtype and strides; not changed.
            patterns: the distinct patterns.
            pattern_of: index of each tensor's pattern.

        Returns:
            for each tensor a new one of the same dtype, device and memory format, without grad.

        Raises:
            ValueError: a pattern does not fit a tensor; the message names both.
        """

    @property
    def rewrite(self) -> Rewrite | None:
        """A function that slices tensors in place and sets dictionary entries, or changes nothing if it fails.

        None if the backend has no such function; then `slice` and a transaction are used. The arguments are those of
        `CppBackend.rewrite`.
        """
