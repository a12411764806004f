"""Comparison of an exported network's outputs with those of the original network."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from torch import Tensor

from gsprune.engines.portable_call import PortableCall
from gsprune.errors import ExportError, first_line, is_out_of_memory

__all__ = ["Comparison", "Exported", "cause_of", "compare"]

Exported = Callable[[Sequence[Tensor]], Sequence[npt.NDArray[Any]]]
"""The exported network: inputs by position -> outputs."""


@dataclass(frozen=True)
class Comparison:
    """The result of a comparison.

    Attributes:
        examples: number of examples.
        max_abs_diff: the largest absolute difference over all elements of all outputs.
        same_choice: number of examples with the same argmax of the first output; None if the first output's shape is
            not (examples, choices).
        ties: number of examples with another argmax, but whose two candidates differ by at most the tolerance.
    """

    examples: int
    max_abs_diff: float
    same_choice: int | None
    ties: int = 0


def compare(
    call: PortableCall, exported: Exported, inputs: Sequence[Tensor], tolerance: float, chunk_size: int = 100
) -> Comparison:
    """Compare outputs on examples.

    Args:
        call: the network.
        exported: the exported network.
        inputs: the network's inputs, with the same number of examples along their first axes.
        tolerance: the largest allowed difference of an element, relative to the largest output if that is above 1;
            infinity allows any difference, and all other choices are ties.
        chunk_size: examples per call.

    Raises:
        ExportError: shapes, values or the argmax differ, or one of the networks fails.
    """
    examples = len(inputs[0]) if inputs and inputs[0].ndim else 1
    worst, same, ties, has_choices = 0.0, 0, 0, True
    for start in range(0, examples, chunk_size):
        chunk = [value[start : start + chunk_size] for value in inputs] if examples > chunk_size else list(inputs)
        try:
            expected = [output.numpy() for output in call(chunk)]
        except Exception as error:
            if is_out_of_memory(error):
                raise
            raise ExportError(f"the network fails: {cause_of(error)}") from error
        try:
            got = list(exported(chunk))
        except Exception as error:
            raise ExportError(f"the exported network fails where the network does not: {error}") from error
        largest = _largest_difference(expected, got, call.output_names, tolerance)
        worst = max(worst, largest)
        if not _has_choices(expected[0]):
            has_choices = False
            continue
        chunk_same, chunk_ties = _choices(expected[0], got[0], tolerance)
        same, ties = same + chunk_same, ties + chunk_ties
    if has_choices and same + ties < examples:
        raise ExportError(f"the exported network chooses otherwise in {examples - same - ties} of {examples} examples")
    return Comparison(examples, worst, same if has_choices else None, ties)


def cause_of(error: BaseException) -> str:
    """The first line of an error's first cause."""
    while error.__cause__ is not None:
        error = error.__cause__
    return first_line(error)


def _largest_difference(
    expected: Sequence[npt.NDArray[Any]], got: Sequence[npt.NDArray[Any]], names: Sequence[str], tolerance: float
) -> float:
    """The largest absolute difference.

    Raises:
        ExportError: number, shape, dtype or values of the outputs differ.
    """
    if len(got) != len(expected):
        raise ExportError(f"the exported network has {len(got)} outputs, the network has {len(expected)}")
    worst = 0.0
    for name, one, other in zip(names, expected, got, strict=True):
        if one.shape != other.shape or one.dtype != other.dtype:
            raise ExportError(
                f"output {name!r} of the exported network is {other.dtype} {other.shape}, the network's"
                f" {one.dtype} {one.shape}"
            )
        if not np.array_equal(np.isfinite(one), np.isfinite(other)):
            raise ExportError(f"output {name!r} of the exported network is not finite where the network's is")
        finite = np.isfinite(one)
        if not finite.any():
            continue
        numbers, others = one[finite].astype(np.float64), other[finite].astype(np.float64)
        difference = float(np.abs(numbers - others).max())
        allowed = tolerance * max(1.0, float(np.abs(numbers).max()))
        if difference > allowed:
            raise ExportError(
                f"output {name!r} of the exported network differs from the network's by {difference:.2e}, more than"
                f" {allowed:.2e}; if that is good enough, pass a larger `tolerance`"
            )
        worst = max(worst, difference)
    return worst


def _has_choices(output: npt.NDArray[Any]) -> bool:
    return output.ndim == 2 and output.shape[1] > 1 and np.issubdtype(output.dtype, np.floating)


def _choices(expected: npt.NDArray[Any], got: npt.NDArray[Any], tolerance: float) -> tuple[int, int]:
    """(examples with the same argmax, other examples whose two candidates are equal up to the tolerance)."""
    rows = np.arange(len(expected))
    chosen, exported_choice = expected.argmax(axis=1), got.argmax(axis=1)
    same = chosen == exported_choice
    gap = expected[rows, chosen] - expected[rows, exported_choice]
    return int(same.sum()), int((~same & (gap <= tolerance)).sum())
