"""Rules of convolutions."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from gsprune.tracing.call import Call
from gsprune.tracing.rules.operands import Operand, along_axis, merge, row_operand
from gsprune.tracing.rules.products import contract, first_vector, vectors_along
from gsprune.tracing.rules.registry import aten
from gsprune.tracing.rules.spatial import tied_over_space
from gsprune.tracing.shadow import Kind, Labels, Shadow, varying
from gsprune.tracing.tape import Tape


class _Kernel(NamedTuple):
    """The weight of a convolution: the atoms of its axes, in one group of the convolution."""

    consumed: Labels | None
    opened: Labels | None
    kind: Kind
    groups: int
    transposed: bool


@aten("convolution _convolution")
def _convolution(tape: Tape, call: Call) -> Shadow:
    """aten.convolution(input, weight, bias, stride, padding, dilation, transposed, output_padding, groups)."""
    x, weight, bias = call.args[:3]
    transposed, groups = call.args[6], call.args[8]
    shadow, kernel = tape.of(x), tape.of(weight)
    vectors, carried = vectors_along(tape, tied_over_space(tape, shadow, 2, call.op), 1)
    channels = first_vector(tape, vectors)
    first, second = (
        first_vector(tape, [layer.reshape(-1) for layer in kernel.layers if varying(layer) == (axis,)])
        for axis in (0, 1)
    )
    for layer in kernel.layers:
        if len(varying(layer)) > 1:
            tape.protect(layer, f"{call.op} with a weight of joint axes")
        elif varying(layer)[0] >= 2:
            tape.protect(layer, "positions of a kernel")
    if transposed:
        first, second = second, first
    made = _outputs(
        tape,
        channels,
        shadow.kind,
        _Kernel(second, first, kernel.kind, groups, transposed),
        x.shape[1],
        call.out.shape[1],
    )
    layers = list(carried)
    if made is not None:
        layers.append(along_axis(made, 1, x.ndim))
    if bias is not None:
        result = Operand(layers, tuple(call.out.shape), Kind.ACTIVATION)
        layers = merge(tape, [result, row_operand(tape, bias, 1, x.ndim)])
    counted = x if transposed else call.out
    tape.count(kernel.source, counted.numel() / counted.shape[1])
    return Shadow(layers)


def _outputs(
    tape: Tape, channels: Labels | None, kind: Kind, kernel: _Kernel, num_inputs: int, num_outputs: int
) -> Labels | None:
    """Unite inputs of that kind with the weight's input axis, group by group; labels of the outputs."""
    consumed, opened, kernel_kind, groups, transposed = kernel
    if 1 < groups == num_inputs:
        return _depthwise(tape, channels, kind, kernel, num_outputs // groups)
    if groups > 1:
        channels = None if channels is None else tape.collapse_parts(channels, groups)
        if transposed:
            consumed = None if consumed is None else tape.collapse_parts(consumed, groups)
            made = opened
        else:
            made = None if opened is None else tape.collapse_parts(opened, groups)
        outputs = None if made is None else np.tile(made, groups)
    else:
        outputs = opened
    if num_inputs // groups > 1:
        contract(tape, channels, kind, consumed, kernel_kind)
    if opened is not None and kernel_kind is Kind.PARAMETER:
        tape.open(opened)
    return outputs


def _depthwise(tape: Tape, channels: Labels | None, kind: Kind, kernel: _Kernel, multiplier: int) -> Labels | None:
    """Output channels k * multiplier ... belong to input channel k."""
    own = kernel.consumed if kernel.transposed else kernel.opened
    if own is None:
        if channels is not None:
            tape.protect(channels, f"{tape.op} with a tensor of fixed size")
        return None
    if channels is not None:
        by_input = own.reshape(-1, 1 if kernel.transposed else multiplier)
        tape.unite(channels.reshape(-1, 1), by_input)
    elif kind is not Kind.CONSTANT:
        tape.protect(own, f"{tape.op} on channels of fixed number")
    if not kernel.transposed:
        return own
    if kernel.opened is not None:
        tape.protect(kernel.opened, f"{tape.op} with a channel multiplier")
    return np.repeat(own, multiplier)
