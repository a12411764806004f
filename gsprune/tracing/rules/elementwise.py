"""Rules of element-wise functions."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch

from gsprune.tracing.call import Call
from gsprune.tracing.rules.operands import aligned, are_biased, common_source, elementwise, highest_kind, protect_all
from gsprune.tracing.rules.registry import POINTWISE, aten, rule
from gsprune.tracing.scales import dot_behind, note_factor
from gsprune.tracing.shadow import Kind, Labels, Shadow
from gsprune.tracing.tape import Tape

# Linear operations, which turn a weight's product into a product of that weight. True if the other operand is a factor.
_LINEAR = {"aten.mul": True, "aten.div": True, "aten.add": False, "aten.sub": False, "aten.neg": False}


# Operations that torch does not tag as pointwise (torch 2.6 tags fewer than 2.13), and those that overwrite a tensor
# element by element.
@aten(
    "_prelu_kernel prelu hardswish log_sigmoid_forward rrelu_with_noise where masked_fill copy clamp clip addcmul "
    "addcdiv lerp fill zero bernoulli uniform normal random exponential cauchy log_normal geometric relu6 max.other "
    "min.other leaky_relu elu celu selu hardsigmoid hardtanh ldexp floor_divide complex polar "
    "softplus_backward elu_backward leaky_relu_backward hardtanh_backward hardswish_backward log_sigmoid_backward "
    "hardsigmoid_backward softshrink_backward hardshrink_backward rrelu_with_noise_backward"
)
@rule(POINTWISE)
def _pointwise(tape: Tape, call: Call) -> Shadow:
    """Any function of elements that meet by broadcasting."""
    is_scaled = note_factor(tape, call)
    shadow = elementwise(tape, call.tensors(), call.outputs()[0].shape)
    if shadow.kind is Kind.ACTIVATION and call.op in _LINEAR:
        shadow = replace(shadow, source=None if is_scaled else _source_of_result(tape, call))
    return replace(shadow, dot=dot_behind(tape, call))


def _source_of_result(tape: Tape, call: Call) -> str | None:
    """The weight whose product the result of a linear operation is, None if there is none. Notes added biases."""
    shadows = [tape.of(tensor) for tensor in call.tensors()]
    products = [shadow for shadow in shadows if shadow.source and shadow.kind is Kind.ACTIVATION]
    others = [shadow for shadow in shadows if shadow not in products]
    if not products or (len(shadows) == 1 and call.op in ("aten.add", "aten.sub")):
        return None
    if _LINEAR[call.op]:
        return products[0].source if len(products) == 1 and not any(shadow.layers for shadow in others) else None
    if any(shadow.kind is not Kind.PARAMETER for shadow in others):
        return None
    rows = [aligned(row, call.out.ndim) for other in others for row in other.layers]
    layers = [aligned(layer, call.out.ndim) for shadow in products for layer in shadow.layers]
    tape.biases.extend((layer, row) for layer in layers for row in rows)
    return common_source(products) if not others or are_biased(layers, rows) else None


@aten("glu")
def _glu(tape: Tape, call: Call) -> Shadow:
    """``glu(x, dim)``: the first half times the sigmoid of the second."""
    axis = call.axis(1, default=-1)

    def move(layer: Labels) -> Labels:
        return tape.unite(*np.split(layer, 2, axis)) if layer.shape[axis] > 1 else layer

    return tape.of(call.args[0]).carry(move)


@aten("bucketize searchsorted")
def _bucketize(tape: Tape, call: Call) -> Shadow:
    """bucketize(x, boundaries) and searchsorted(boundaries, x): functions of each element of x."""
    x, boundaries = call.args[:2] if call.op == "aten.bucketize" else call.args[1::-1]
    if not isinstance(x, torch.Tensor) or boundaries.ndim != 1:
        return protect_all(tape, call)
    limits, shadow = tape.of(boundaries), tape.of(x)
    tape.protect(limits, f"{call.op} with sorted boundaries")
    return Shadow(shadow.layers, highest_kind([limits, shadow]))
