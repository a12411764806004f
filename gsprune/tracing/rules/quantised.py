"""Rules of fake quantisation: rounding to a grid whose scale and zero point hold per tensor or per channel.

Zero stays zero, so a removed channel is one of zeros. Observers, which take the scale from the values that they see, do
not run while a network is traced or checked (`gsprune.tracing.temporary_eval`).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from gsprune.tracing.call import Call, axis_of
from gsprune.tracing.rules.operands import elementwise, merge, operand, row_operand
from gsprune.tracing.rules.registry import aten
from gsprune.tracing.shadow import Kind, Shadow
from gsprune.tracing.tape import Tape


@aten(
    "fake_quantize_per_tensor_affine_cachemask _fake_quantize_per_tensor_affine_cachemask_tensor_qparams "
    "_fake_quantize_learnable_per_tensor_affine"
)
def _per_tensor(tape: Tape, call: Call) -> Shadow:
    """fake_quantize_per_tensor_affine(x, scale, zero_point, ...): element by element."""
    return elementwise(tape, [call.args[0]], call.args[0].shape)


@aten("fake_quantize_per_channel_affine_cachemask _fake_quantize_learnable_per_channel_affine")
def _per_channel(tape: Tape, call: Call) -> Shadow:
    """fake_quantize_per_channel_affine(x, scale, zero_point, axis, ...): scales and zero points are the channels'."""
    return _along(tape, call.args[0], call.args[1:3], call.args[3])


@aten("_fused_moving_avg_obs_fq_helper")
def _observed(tape: Tape, call: Call) -> list[Shadow]:
    """An observer's extremes, scales and zero points, per tensor or per channel."""
    if call.arg(11, "per_row_fake_quant", False):
        shadow = _along(tape, call.args[0], call.args[3:7], call.args[10])
    else:
        shadow = _per_tensor(tape, call)
    return [shadow] * len(call.out)


def _along(tape: Tape, x: torch.Tensor, vectors: Sequence[torch.Tensor], axis: int) -> Shadow:
    """`x` element by element with vectors along one axis.

    Vectors of an observer that had not run before the trace had another size then. They are left out.
    """
    axis, shadow = axis_of(axis, x.ndim), tape.of(x)
    rows = []
    for vector in vectors:
        own = tape.of(vector)
        if own.layers or own.kind is not Kind.PARAMETER:
            rows.append(row_operand(tape, vector, axis, x.ndim))
    layers = merge(tape, [operand(tape, x, x.ndim), *rows])
    return Shadow(layers, shadow.kind, shadow.source if shadow.kind is Kind.PARAMETER else None)
