"""Marks: notes of the tracer that are attributes of a tensor, and so live as long as the tensor."""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

from torch import Tensor

from gsprune.tracing.shadow import Shadow

__all__ = ["Mark", "ensure_mark", "is_noise", "mark_of", "num_writes", "set_noise", "unmark"]

_ATTRIBUTE = "_gsprune_mark"


@dataclass(slots=True)
class Mark:
    """Notes on one tensor.

    Attributes:
        shadow: its shadow; None if it has none.
        writes: number of writes into the tensor, also through its views.
        writes_before: that number when the tensor got its shadow.
        is_noise: True if its values are random, or computed from random ones.
    """

    shadow: Shadow | None = None
    writes: int = 0
    writes_before: int = 0
    is_noise: bool = False


def mark_of(tensor: Tensor) -> Mark | None:
    """The mark of a tensor, None if it has none."""
    return cast("Mark | None", tensor.__dict__.get(_ATTRIBUTE))


def ensure_mark(tensor: Tensor) -> Mark:
    """The mark of a tensor, made if it has none."""
    return cast("Mark", tensor.__dict__.setdefault(_ATTRIBUTE, Mark()))


def unmark(tensor: Tensor) -> None:
    """Remove the mark of a tensor that outlives the trace."""
    tensor.__dict__.pop(_ATTRIBUTE, None)


def num_writes(tensor: Tensor) -> int:
    """The number of writes into a tensor; of a view, into its base."""
    mark = mark_of(tensor if tensor._base is None else tensor._base)
    return 0 if mark is None else mark.writes


def is_noise(tensor: Tensor) -> bool:
    """True if the forward has drawn the tensor's values at random, or computed them from random ones."""
    mark = mark_of(tensor)
    return mark is not None and mark.is_noise


def set_noise(tensor: Tensor, value: bool) -> None:
    """Note whether a tensor's values are random."""
    if value or mark_of(tensor) is not None:
        ensure_mark(tensor).is_noise = value
