"""Numbers that channels are multiplied with, divided by or shifted by: the smaller network must compute the same ones.

Code that computes a number from a width (``x / x.shape[-1]``, ``math.log(width)``) computes another one once the width
has shrunk. The numbers of the traced forward are compared with those of the smaller network, wherever they come from. A
mean written as a sum over channels divided by their number is an exception: it reads the channels as a population.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from torch import Tensor

from gsprune.tracing.constants import is_noise, uneven_axes
from gsprune.tracing.rules_common import Call
from gsprune.tracing.scales import number_of
from gsprune.tracing.shadow import Kind, Shadow
from gsprune.tracing.tape import Tape

__all__ = ["first_number", "numbers_of"]

_ARITHMETIC = frozenset(f"aten.{name}" for name in ("add", "div", "mul", "pow", "rsub", "sub"))


def numbers_of(tape: Tape, call: Call, inputs: Sequence[Shadow]) -> tuple[tuple[int, float], ...]:
    """(position, value) of the arguments of an operation on channels, or on a sum over channels, that are constants."""
    sums = [shadow.sum for shadow in inputs if shadow.sum is not None]
    of_channels = any(shadow.layers and shadow.kind is Kind.ACTIVATION for shadow in inputs)
    if call.op not in _ARITHMETIC or tape.scale is not None or not (sums or of_channels):
        return ()
    found = []
    for index, value in enumerate(call.args[:2]):
        number = first_number(value) if not isinstance(value, Tensor) or _is_constant(tape, call, value) else None
        if number is not None:
            found.append((index, number))
    power = {"aten.div": 1.0, "aten.mul": -1.0}.get(call.op)
    for layers, counts in sums:
        if power and any(math.isclose(number, count**power, rel_tol=1e-6) for _, number in found for count in counts):
            tape.population(layers)
            return ()
    return tuple(found)


def first_number(value: Any) -> float | None:
    """A Python number, or the first element of a tensor whose elements are all the same."""
    if isinstance(value, Tensor):
        return number_of(value.flatten()[:1]) if value.numel() else None
    return number_of(value)


def _is_constant(tape: Tape, call: Call, tensor: Tensor) -> bool:
    """Whether a tensor is a constant of equal values, made by the forward and not the one written to."""
    shadow = tape.of(tensor)
    return (
        shadow.kind is Kind.CONSTANT
        and tensor is not call.out
        and not is_noise(tensor)
        and not uneven_axes(tensor, shadow)
    )
