"""Values that an operation uses and that must not change with a width: numbers, and positions of channels.

Code that computes a number from a width (``x / x.shape[-1]``, ``math.log(width)``) computes another one once the width
has shrunk. The numbers of the traced forward are compared with those of the smaller network. A mean written as a sum
over channels divided by their number is an exception: it reads the channels as a population.

Channels whose position becomes a value (an action, a row of a table, a mask of the chosen expert) must keep their
positions. An unused index is harmless: code may need only ``x.max(1).values``. So the index's shadow holds the channels
as `positions`, and the first operation that uses the index protects them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from torch import Tensor

from gsprune.tracing.call import Call, outputs_of
from gsprune.tracing.constants import number_of, typical_number, uneven_axes
from gsprune.tracing.marks import is_noise
from gsprune.tracing.shadow import Kind, Shadow
from gsprune.tracing.tape import Tape
from gsprune.tracing.trail import Numbers, Reading

__all__ = ["numbers_of", "reading_of", "use_positions"]

# Products that multiply their terms by numbers (alpha, beta). So do many pointwise operations.
_SCALED_PRODUCTS = frozenset(f"aten.{name}" for name in ("addmm", "baddbmm", "addmv"))
# These change no value, so that the result holds the same sums and positions.
_SAME_VALUES = frozenset(
    f"aten.{name}"
    for name in (
        *("_to_copy", "alias", "clone", "detach", "view", "_unsafe_view"),
        *("squeeze", "unsqueeze", "expand", "permute", "transpose", "t"),
    )
)


def numbers_of(tape: Tape, call: Call, inputs: Sequence[Shadow], *, is_pointwise: bool) -> Numbers:
    """The constant arguments of a pointwise operation, a scaled product or an attention, but for its scale.

    Inputs without channels count, too: a logit or a value may be divided by the width that it was computed from.
    Arguments are numbered by position; those passed by name have their names.
    """
    sums = [shadow.sum for shadow in inputs if shadow.sum is not None]
    is_constant = all(shadow.kind is Kind.CONSTANT for shadow in inputs)
    if is_constant or not (is_pointwise or call.op in _SCALED_PRODUCTS or "scaled_dot_product" in call.op):
        return ()
    arguments: list[tuple[int | str, Any]] = [*enumerate(call.args), *call.kwargs.items()]
    candidates = [(place, typical_number(value)) for place, value in arguments if _is_number(tape, call, value)]
    found = [(place, number) for place, number in candidates if number is not None]
    power = {"aten.div": 1.0, "aten.mul": -1.0}.get(call.op)
    for layers, counts in sums:
        if power and any(math.isclose(number, count**power, rel_tol=1e-6) for _, number in found for count in counts):
            tape.population(layers)
            return ()
    return tuple((place, number) for place, number in found if tape.scale is None or place != tape.scale.place)


def reading_of(result: Any) -> Reading:
    """The reading of an operation: the number that it returned, or the sizes of its tensors."""
    if isinstance(result, int | float | complex):
        return result
    return tuple(tuple(tensor.shape) for tensor in outputs_of(result))


def _is_number(tape: Tape, call: Call, value: Any) -> bool:
    """True for a Python number, and for a constant that the operation does not write to.

    Constants whose values differ along an axis of channels are left out, because they protect the channels.
    """
    if not isinstance(value, Tensor):
        return isinstance(value, int | float) and not isinstance(value, bool)
    shadow = tape.of(value)
    if shadow.kind is not Kind.CONSTANT or value is call.out or value.numel() == 0 or is_noise(value):
        return False
    return not (shadow.layers and uneven_axes(value, shadow))


def use_positions(tape: Tape, call: Call, inputs: Sequence[Shadow]) -> None:
    """Protect the channels whose positions an operation uses as values, or pass the positions on to its output.

    The outputs have their shadows already. `inputs` are the inputs' shadows from before the operation.
    """
    positions = [layer for shadow in inputs for layer in shadow.positions]
    if call.op in _SAME_VALUES and (positions or inputs[0].sum is not None):
        shadow = tape.of(call.out)
        tape.mark(call.out, Shadow(shadow.layers, shadow.kind, positions=positions, sum=inputs[0].sum))
    elif positions and _is_zero(call):
        tape.mark(call.out, replace(tape.of(call.out), positions=()))
    else:
        for layer in positions:
            tape.protect(layer, f"{call.op} uses positions of channels as values")


def _is_zero(call: Call) -> bool:
    """True for a product with the number 0, which does not depend on the index (``loss + 0 * unused``)."""
    return call.op == "aten.mul" and any(np.isscalar(value) and number_of(value) == 0 for value in call.args)
