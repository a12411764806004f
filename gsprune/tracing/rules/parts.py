"""Rules of operations that cut tensors into parts and join them: select, slice, split, cat, stack."""

from __future__ import annotations

from collections.abc import Sequence
from math import gcd

import numpy as np
import torch

from gsprune.tracing.call import Call, axis_of
from gsprune.tracing.constants import are_written_sizes
from gsprune.tracing.rules.operands import Operand, common_source, highest_kind, merge, operand
from gsprune.tracing.rules.registry import aten
from gsprune.tracing.shadow import FIXED, FLEXIBLE, Kind, Labels, Shadow, compressed
from gsprune.tracing.tape import Tape

_WRITTEN = "channels cut at a number written into the code"


def _picked(tape: Tape, shadow: Shadow, axis: int, index: int) -> Shadow:
    """`shadow` at one position of an axis.

    A layer that varies over this axis only is protected, since the position is a number in the code. Other layers are
    tied along the axis (queries, keys and values of one projection).
    """
    layers = []
    for layer in shadow.layers:
        cut: Labels = np.take(layer, index if layer.shape[axis] > 1 else 0, axis)
        if cut.size == 1:
            tape.protect(layer, "one channel picked by its number")
            continue
        tape.collapse(layer, [axis])
        layers.append(cut)
    return shadow.with_layers(layers)


@aten("select")
def _select(tape: Tape, call: Call) -> Shadow:
    return _picked(tape, tape.of(call.args[0]), call.axis(1), int(call.arg(2, "index")))


@aten("unbind unbind_copy")
def _unbind(tape: Tape, call: Call) -> list[Shadow]:
    """``unbind``: one output per position of an axis."""
    shadow, axis = tape.of(call.args[0]), call.axis(1)
    return [_picked(tape, shadow, axis, index) for index in range(len(call.out))]


@aten("slice")
def _slice(tape: Tape, call: Call) -> Shadow:
    """slice(x, dim, start, end, step): parts of the length that divides both bounds and the axis are tied.

    Bounds that are written in the code, or have no common divisor with the axis, protect the channels.
    """
    shadow, axis = tape.of(call.args[0]), call.axis(1)
    size, length = call.args[0].shape[axis], call.out.shape[axis]
    if size == length:
        return shadow
    start, end, step = slice(call.arg(2, "start"), call.arg(3, "end"), call.arg(4, "step", 1)).indices(size)
    unit = gcd(start, start + length, size)
    bounds = [bound for bound in (start, start + length) if bound not in (0, size)]
    if step == 1 and length and (unit == length or (unit > 1 and not _are_written_bounds(bounds, size))):
        _split_parts(tape, shadow, axis, size // unit)
    else:
        tape.protect_along(shadow, [axis], _WRITTEN)
    return _cut(shadow, axis, slice(start, end, step))


def _are_written_bounds(bounds: Sequence[int], size: int) -> bool:
    """True if the code contains the bounds of a slice, unless one may be the quotient of `size` and a number there."""
    is_quotient = any(size % bound == 0 and are_written_sizes([size // bound]) for bound in bounds)
    return are_written_sizes(bounds) and not is_quotient


def _cut(shadow: Shadow, axis: int, part: slice) -> Shadow:
    index = (slice(None),) * axis + (part,)
    cuts = [layer[index] if layer.shape[axis] > 1 else layer for layer in shadow.layers]
    return shadow.with_layers([compressed(cut, [axis]) for cut in cuts if cut.size > 1])


def _split_parts(tape: Tape, shadow: Shadow, axis: int, parts: int) -> None:
    """Note that an axis was split into equal parts, which must shrink equally."""
    for layer in shadow.layers:
        size = layer.shape[axis]
        if size > 1:
            shape = (*layer.shape[:axis], parts, size // parts, *layer.shape[axis + 1 :])
            tape.split(layer.reshape(shape), (axis, axis + 1), fixed_parts=True)


@aten(
    "split split_with_sizes unsafe_split unsafe_split_with_sizes split_copy split_with_sizes_copy chunk unsafe_chunk "
    "tensor_split"
)
def _split(tape: Tape, call: Call) -> list[Shadow]:
    """Splits and chunks. Equal parts shrink equally, unequal parts on their own.

    Sizes that are written in the code, and unequal chunks, protect the channels.
    """
    shadow, axis = tape.of(call.args[0]), call.axis(2)
    sizes = [part.shape[axis] for part in call.out]
    if len(sizes) == 1 or not shadow.layers:
        return [shadow] * len(sizes)
    varies = any(layer.shape[axis] > 1 for layer in shadow.layers)
    with_sizes = "with_sizes" in call.op
    if varies and with_sizes and are_written_sizes(sizes):
        tape.protect_along(shadow, [axis], _WRITTEN)
    elif len(set(sizes)) == 1:
        _split_parts(tape, shadow, axis, len(sizes))
    elif with_sizes:
        _note_equal_lengths(tape, shadow, axis, sizes)
    else:
        tape.protect_along(shadow, [axis], f"{call.op} into unequal parts")
    ends = np.cumsum(sizes).tolist()
    return [_cut(shadow, axis, slice(end - size, end)) for end, size in zip(ends, sizes, strict=True)]


def _note_equal_lengths(tape: Tape, shadow: Shadow, axis: int, sizes: Sequence[int]) -> None:
    """Note that parts of the same size must stay equally long: the code may use one number for all of them."""
    for layer in shadow.layers:
        if layer.shape[axis] == 1:
            continue
        first: dict[int, Labels] = {}
        for size, end in zip(sizes, np.cumsum(sizes).tolist(), strict=True):
            part = tape.vector(layer, axis)[end - size : end]
            if size and size in first:
                tape.equal_lengths.append((first[size], part, tape.op))
            first.setdefault(size, part)


@aten("cat _cat concat concatenate")
def _cat(tape: Tape, call: Call) -> Shadow:
    """cat(tensors, dim): labels are joined along `dim`; along the other axes the tensors meet element-wise."""
    tensors = [tensor for tensor in call.args[0] if tensor.shape != (0,)]
    ndim = call.out.ndim
    axis = axis_of(call.arg(1, "dim", 0), ndim)
    operands = [operand(tape, tensor, ndim) for tensor in tensors]
    joined = _joined(tape, tensors, operands, axis)
    across = [
        Operand(
            [layer for layer in item.layers if layer.shape[axis] == 1],
            (*item.sizes[:axis], 1, *item.sizes[axis + 1 :]),
            item.kind,
        )
        for item in operands
    ]
    layers = merge(tape, across)
    if joined is not None:
        layers.append(joined)
    shadows = [tape.of(tensor) for tensor in tensors]
    return Shadow(layers, highest_kind(shadows), common_source(shadows))


def _joined(tape: Tape, tensors: Sequence[torch.Tensor], operands: Sequence[Operand], axis: int) -> Labels | None:
    """The layer along the axis of a concatenation. Parts without labels there get fixed or flexible ones."""
    along = []
    for item in operands:
        layers = [layer for layer in item.layers if layer.shape[axis] > 1]
        for other in layers[1:]:
            tape.protect(other, "cat: another axis holds the channels")
        along.append(layers[0] if layers else None)
    are_flexible = [
        layer is None and item.kind is Kind.CONSTANT and _is_flexible(tensor, axis)
        for tensor, item, layer in zip(tensors, operands, along, strict=True)
    ]
    if all(layer is None for layer in along) and (axis == 0 or len(set(are_flexible)) == 1):
        return None
    pieces = []
    for item, layer, is_flexible in zip(operands, along, are_flexible, strict=True):
        size = item.sizes[axis]
        part = np.full((1,) * len(item.sizes), FLEXIBLE if is_flexible else FIXED, np.int32) if layer is None else layer
        pieces.append(np.broadcast_to(part, [*part.shape[:axis], size, *part.shape[axis + 1 :]]))
    common = np.broadcast_shapes(*[(*piece.shape[:axis], 1, *piece.shape[axis + 1 :]) for piece in pieces])
    whole = [np.broadcast_to(piece, [*common[:axis], piece.shape[axis], *common[axis + 1 :]]) for piece in pieces]
    return np.concatenate(whole, axis)


def _is_flexible(constant: torch.Tensor, axis: int) -> bool:
    """True if a constant's values are equal along `axis` (a state of zeros) and the code does not contain its size."""
    size = constant.shape[axis]
    if size == 1 or constant.is_meta or are_written_sizes([size]):
        return False
    return bool((constant == constant.narrow(axis, 0, 1)).all())


@aten("stack")
def _stack(tape: Tape, call: Call) -> Shadow:
    """stack(tensors, dim): along the old axes the tensors meet element-wise; the new axis is fixed."""
    axis = axis_of(call.arg(1, "dim", 0), call.out.ndim)
    layers = merge(tape, [operand(tape, tensor, tensor.ndim) for tensor in call.args[0]])
    shadows = [tape.of(tensor) for tensor in call.args[0]]
    return Shadow([np.expand_dims(layer, axis) for layer in layers], highest_kind(shadows), common_source(shadows))
