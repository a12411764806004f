"""Rules of fake quantisation: rounding to a grid whose scale and zero point hold per tensor or per channel.

Zero stays zero, so a removed channel is one of zeros. Observers, which take the scale from the values that they see, do
not run while a network is traced or checked (`gsprune.tracing.undisturbed`).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from gsprune.tracing.rules_common import Call, Rule, axis_of, channels_out, elementwise, operand
from gsprune.tracing.shadow import Kind, Shadow
from gsprune.tracing.tape import Operand, Tape

__all__ = ["RULES"]


def _per_tensor(tape: Tape, call: Call) -> list[Shadow]:
    """fake_quantize_per_tensor_affine(x, scale, zero_point, ...): element by element."""
    x = call.args[0]
    return _outputs(call, elementwise(tape, [x], x.shape))


def _per_channel(tape: Tape, call: Call) -> list[Shadow]:
    """fake_quantize_per_channel_affine(x, scale, zero_point, axis, ...): scales and zero points are the channels'."""
    return _outputs(call, _along(tape, call.args[0], call.args[1:3], call.args[3]))


def _observed(tape: Tape, call: Call) -> list[Shadow]:
    """_fused_moving_avg_obs_fq_helper: an observer's extremes, scales and zero points, per tensor or per channel."""
    per_channel = call.arg(11, "per_row_fake_quant", False)
    if not per_channel:
        return _per_tensor(tape, call)
    return _outputs(call, _along(tape, call.args[0], call.args[3:7], call.args[10]))


def _along(tape: Tape, x: torch.Tensor, vectors: Sequence[torch.Tensor], axis: int) -> Shadow:
    """`x` element by element with vectors along one axis, but those that had another size before the trace.

    They belong to an observer that has never run.
    """
    axis, shadow = axis_of(axis, x.ndim), tape.of(x)
    sizes = tuple(x.shape[axis] if other == axis else 1 for other in range(x.ndim))
    rows = []
    for vector in vectors:
        own = tape.of(vector)
        if own.layers or own.kind is not Kind.PARAMETER:
            rows.append(Operand(tuple(channels_out(layer, axis, x.ndim) for layer in own.layers), sizes, own.kind))
    layers = tape.merge([operand(tape, x, x.ndim), *rows])
    return Shadow(layers, shadow.kind, shadow.source if shadow.kind is Kind.PARAMETER else None)


def _outputs(call: Call, shadow: Shadow) -> list[Shadow]:
    """The same for the result and, where there is one, the mask of what was not clipped."""
    return [shadow] * (len(call.out) if isinstance(call.out, tuple | list) else 1)


def _table(rule: Rule, *names: str) -> dict[str, Rule]:
    return {f"aten.{name}": rule for name in names}


RULES: dict[str, Rule] = {
    **_table(
        _per_tensor,
        "fake_quantize_per_tensor_affine_cachemask",
        "_fake_quantize_per_tensor_affine_cachemask_tensor_qparams",
        "_fake_quantize_learnable_per_tensor_affine",
    ),
    **_table(_per_channel, "fake_quantize_per_channel_affine_cachemask", "_fake_quantize_learnable_per_channel_affine"),
    **_table(_observed, "_fused_moving_avg_obs_fq_helper"),
}
