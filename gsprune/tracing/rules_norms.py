"""Rules of operations that rescale a tensor to a norm."""

from __future__ import annotations

from gsprune.tracing.rules_common import Call, Rule, axis_of, elementwise
from gsprune.tracing.shadow import Kind, Shadow, varying
from gsprune.tracing.tape import Tape

__all__ = ["RULES"]


def _weight_norm(tape: Tape, call: Call) -> list[Shadow]:
    """``weight_norm``: g * v / |v| along one axis."""
    direction, magnitude = call.args[:2]
    return [elementwise(tape, [direction, magnitude], direction.shape)]


def _renorm(tape: Tape, call: Call) -> Shadow:
    """renorm(x, p, dim, maxnorm): each position of `dim` has a norm over all other axes.

    Those of a weight do not see rows of zeros.
    """
    x = call.args[0]
    shadow, axis = tape.of(x), axis_of(call.arg(2, "dim"), x.ndim)
    if shadow.kind is not Kind.PARAMETER:
        tape.population(layer for layer in shadow.layers if varying(layer) != (axis,))
    return elementwise(tape, [x], x.shape)


def _table(rule: Rule, names: str) -> dict[str, Rule]:
    return {f"aten.{name}": rule for name in names.split()}


RULES: dict[str, Rule] = {
    **_table(_weight_norm, "_weight_norm_interface _weight_norm"),
    **_table(_renorm, "renorm"),
}
