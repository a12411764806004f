"""Positions as values: what an index that `max` or `argmax` has made is used for.

Where a channel's position becomes a value (an action, a row of a table, a mask of the chosen expert), the channels must
keep their positions. The index alone does no harm: code that wants ``x.max(1).values`` leaves it unused. So the index
remembers the channels, and whatever uses it protects them.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from gsprune.tracing.rules_common import Call
from gsprune.tracing.scales import number_of
from gsprune.tracing.shadow import Shadow
from gsprune.tracing.tape import Tape

__all__ = ["use_positions"]

# These change no value, so that the result holds the same positions.
_SAME_VALUES = frozenset(
    f"aten.{name}"
    for name in [
        "_to_copy",
        "alias",
        "clone",
        "detach",
        "view",
        "_unsafe_view",
        "squeeze",
        "unsqueeze",
        "expand",
        "permute",
        "transpose",
        "t",
    ]
)


def use_positions(tape: Tape, call: Call, inputs: Sequence[Shadow]) -> None:
    """Protect the channels whose positions an operation uses, or let its output hold the same positions.

    Args:
        tape: the tape; the outputs have their shadows.
        call: the operation.
        inputs: shadows of its inputs, from before it.
    """
    positions = [layer for shadow in inputs for layer in shadow.positions]
    if call.op in _SAME_VALUES and inputs[0].sum is not None:
        shadow = tape.of(call.out)
        tape.mark(call.out, Shadow(shadow.layers, shadow.kind, positions=positions, sum=inputs[0].sum))
    if not positions:
        return
    is_zero = _is_zero(call)
    if is_zero or call.op in _SAME_VALUES:
        shadow = tape.of(call.out)
        tape.mark(call.out, Shadow(shadow.layers, shadow.kind, positions=() if is_zero else positions))
        return
    for layer in positions:
        tape.protect(layer, f"{call.op} uses positions of channels as values")


def _is_zero(call: Call) -> bool:
    """True for a product with the number 0, which is 0 whatever the index is (``loss + 0 * unused``)."""
    return call.op == "aten.mul" and any(np.isscalar(value) and number_of(value) == 0 for value in call.args)
