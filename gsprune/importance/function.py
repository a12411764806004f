"""A criterion from a user's function of one weight matrix."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from gsprune.arrays import Float64Array
from gsprune.errors import ScoreError, place_in_user_code
from gsprune.importance.criterion import Criterion, ScoreSource
from gsprune.importance.weights import as_matrix, member_rows, unit_sums
from gsprune.tracing.graph import Member

__all__ = ["FromFunction", "MatrixFunction"]

MatrixFunction = Callable[[Tensor], Tensor]


class FromFunction(Criterion):
    """A criterion from a function of one weight as a matrix.

        statistic(unit) = Σ over the unit's positions p of function(matrix)[p]

    The function gets the weight as a (positions, other elements) float64 tensor without gradient. Its first axis is the
    group's axis of the weight. It returns one number per position.
    """

    def __init__(self, function: MatrixFunction) -> None:
        self.function = function

    def statistics(self, source: ScoreSource) -> dict[str, Float64Array]:
        """Statistics of all weights with two axes or more; see `Criterion.statistics`."""
        return member_rows(source, self._row)

    def _row(self, weight: Tensor, member: Member, num_units: int) -> Float64Array:
        matrix = as_matrix(weight, member.axis)
        try:
            values = self.function(matrix)
        except (MemoryError, torch.OutOfMemoryError):
            raise
        except Exception as error:
            raise ScoreError(
                f"`importance`: {self.function!r} failed on the weight {member.tensor!r}, which it got as a"
                f" {tuple(matrix.shape)} matrix: {error}{place_in_user_code(error)}"
            ) from error
        if not isinstance(values, Tensor) or values.shape != matrix.shape[:1] or values.is_complex():
            got = str(tuple(values.shape)) if isinstance(values, Tensor) else type(values).__name__
            if isinstance(values, Tensor) and values.is_complex():
                got = "complex numbers"
            raise ValueError(
                f"`importance`: {self.function!r} must return a tensor of shape ({matrix.shape[0]},), one number "
                f"per row of the weight {member.tensor!r} it got as a {tuple(matrix.shape)} matrix; got {got}"
            )
        return unit_sums(values.detach().to("cpu", torch.float64).numpy(), member, num_units)
