"""Rules of convolutions."""

from __future__ import annotations

import numpy as np

from gsprune.tracing.call import Call
from gsprune.tracing.constants import UNEVEN, uneven_axes
from gsprune.tracing.rules.operands import Operand, along_axis, merge, row_operand
from gsprune.tracing.rules.products import contract, first_vector, vectors_along
from gsprune.tracing.rules.registry import aten
from gsprune.tracing.rules.spatial import tied_over_space
from gsprune.tracing.shadow import FIXED, FREE, Kind, Labels, Shadow, varying
from gsprune.tracing.tape import Tape


@aten("convolution _convolution")
def _convolution(tape: Tape, call: Call) -> Shadow:
    """aten.convolution(input, weight, bias, stride, padding, dilation, transposed, output_padding, groups)."""
    x, weight, bias = call.args[:3]
    transposed, kernel = call.args[6], tape.of(weight)
    positions = tied_over_space(tape, call, 2, unmixed=_unmixed_axes(call))
    vectors, carried = vectors_along(tape, positions.layers, 1)
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
    consumed, opened = (first, second) if transposed else (second, first)
    made = _outputs(tape, call, channels, consumed, opened)
    layers = list(carried)
    if made is not None:
        layers.append(along_axis(made, 1, x.ndim))
    if bias is not None:
        result = Operand(layers, tuple(call.out.shape), Kind.ACTIVATION)
        layers = merge(tape, [result, row_operand(tape, bias, 1, x.ndim)])
    counted = x if transposed else call.out
    tape.count(kernel.source, counted.numel() / counted.shape[1])
    return Shadow(layers)


def _unmixed_axes(call: Call) -> list[int]:
    """The spatial axes along which the kernel has size 1, and which it neither pads nor skips."""
    weight, stride, padding, output_padding = call.args[1], call.args[3], call.args[4], call.args[7]
    rank = weight.ndim - 2
    per_axis = zip(
        *(list(sizes) * (rank // len(sizes)) for sizes in (weight.shape[2:], stride, padding, output_padding)),
        strict=True,
    )
    return [axis + 2 for axis, sizes in enumerate(per_axis) if sizes == (1, 1, 0, 0)]


def _outputs(
    tape: Tape, call: Call, channels: Labels | None, consumed: Labels | None, opened: Labels | None
) -> Labels | None:
    """Unite the input's channels with those that the weight consumes, group by group; labels of the outputs."""
    x, weight, transposed, groups = call.args[0], call.args[1], call.args[6], call.args[8]
    if 1 < groups == x.shape[1]:
        return _depthwise(tape, call, channels, consumed if transposed else opened, opened)
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
    kind = tape.of(weight).kind
    if x.shape[1] // groups > 1:
        contract(tape, channels, tape.of(x).kind, consumed, kind)
    if opened is not None and kind is Kind.PARAMETER:
        tape.open(opened)
    return outputs


def _depthwise(
    tape: Tape, call: Call, channels: Labels | None, own: Labels | None, opened: Labels | None
) -> Labels | None:
    """Output channels k * multiplier ... belong to input channel k; `own` are the weight's labels of its inputs."""
    x, transposed, groups = call.args[0], call.args[6], call.args[8]
    rows = None if own is None else own.reshape(groups, -1)
    if rows is None or (rows.min() != FIXED and (rows == rows[0]).all()):  # no rows, or the same ones for all channels
        return _shared_kernel(tape, call, channels, rows)
    if channels is not None:
        tape.unite(channels.reshape(-1, 1), rows)
    elif tape.of(x).kind is not Kind.CONSTANT:
        tape.protect(rows, f"{tape.op} on channels of fixed number")
    if not transposed:
        return own
    if opened is not None:
        tape.protect(opened, f"{tape.op} with a channel multiplier")
    return np.repeat(rows, call.out.shape[1] // groups)


def _shared_kernel(tape: Tape, call: Call, channels: Labels | None, rows: Labels | None) -> Labels | None:
    """Outputs of one kernel for all channels, which the forward repeats or makes; `rows` are its labels by channel."""
    weight, groups = call.args[1], call.args[8]
    if channels is None:
        return None
    if rows is not None:
        tape.protect(rows[0], f"{tape.op} with one kernel for all channels")
    elif tape.of(weight).kind is not Kind.CONSTANT:
        tape.protect(channels, f"{tape.op} with a tensor of fixed size")
        return None
    elif 0 in uneven_axes(weight.reshape(groups, -1), FREE):
        tape.protect(channels, f"{tape.op} with {UNEVEN}")
        return None
    return np.repeat(channels, call.out.shape[1] // groups)
