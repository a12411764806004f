"""Applies rules of other packages. Their errors name the operation."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from gsprune.errors import TraceError, failure_text, is_out_of_memory
from gsprune.tracing.call import Call
from gsprune.tracing.rules.registry import Rule
from gsprune.tracing.shadow import Shadow
from gsprune.tracing.tape import Tape

__all__ = ["result_of_own_rule"]


def result_of_own_rule(rule: Rule, tape: Tape, call: Call) -> Shadow | Sequence[Shadow]:
    """Apply a rule, and check what it returns.

    Raises:
        TraceError: the rule fails, or returns something else than shadows that fit the outputs.
    """
    try:
        result = rule(tape, call)
    except Exception as error:
        if is_out_of_memory(error):
            raise
        raise TraceError(f"the rule of {call.op} failed with {failure_text(error)}") from error
    outputs = call.out if isinstance(call.out, tuple | list) else [call.out]
    shadows = [result] * len(outputs) if isinstance(result, Shadow) else result
    if not isinstance(shadows, list | tuple) or not all(isinstance(shadow, Shadow) for shadow in shadows):
        raise TraceError(
            f"the rule of {call.op} must return the Shadow of its outputs, or a list with one for each, got"
            f" {type(result).__name__}"
        )
    if len(shadows) > len(outputs):
        raise TraceError(f"the rule of {call.op} returned {len(shadows)} shadows for {len(outputs)} outputs")
    for shadow, output in zip(shadows, outputs, strict=False):
        for layer in shadow.layers if isinstance(output, Tensor) else ():
            shape, sizes = tuple(layer.shape), tuple(output.shape)
            if len(shape) != len(sizes) or any(a not in (1, b) for a, b in zip(shape, sizes, strict=True)):
                raise TraceError(
                    f"the rule of {call.op} returned a layer of shape {shape} for an output of shape {sizes}: a layer"
                    " has the axes of the output, each of its size or of size 1"
                )
    return result
