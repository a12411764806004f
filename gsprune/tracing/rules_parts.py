"""Rules of operations that cut tensors into parts and join them: select, slice, split, cat, stack."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from gsprune.tracing.rules_common import Call, Rule, axis_of, common_source, operand, origin
from gsprune.tracing.scales import are_written_sizes
from gsprune.tracing.shadow import FIXED, FLEXIBLE, Kind, Labels, Shadow, compressed
from gsprune.tracing.tape import Operand, Tape

__all__ = ["RULES"]


def _picked(tape: Tape, shadow: Shadow, axis: int, index: int) -> Shadow:
    """`shadow` at one position of an axis.

    A layer that varies there alone is protected: the position is a number written into the code. One that varies over
    other axes too is tied along this one (queries, keys and values of one projection).
    """
    layers = []
    for layer in shadow.layers:
        if layer.shape[axis] == 1:
            layers.append(layer.squeeze(axis))
            continue
        cut: Labels = np.take(layer, index, axis)
        if cut.size > 1:
            tape.collapse(layer, [axis])
            layers.append(cut)
        else:
            tape.protect(layer, "one channel picked by its number")
    return shadow.with_layers(layers)


def _select(tape: Tape, call: Call) -> Shadow:
    x: torch.Tensor = call.args[0]
    shadow = tape.of(x)
    axis = axis_of(call.arg(1, "dim"), x.ndim)
    index = int(call.arg(2, "index"))
    return _picked(tape, shadow, axis, index % x.shape[axis])


def _slice(tape: Tape, call: Call) -> Shadow:
    """slice(x, dim, start, end, step): equal parts of an axis are tied, other bounds are protected."""
    x: torch.Tensor = call.args[0]
    shadow = tape.of(x)
    axis = axis_of(call.arg(1, "dim", 0), x.ndim)
    size, length = x.shape[axis], call.out.shape[axis]
    if size == length:
        return shadow
    start, end, step = slice(call.arg(2, "start"), call.arg(3, "end"), call.arg(4, "step", 1)).indices(size)
    if step == 1 and length and size % length == 0 and start % length == 0:
        _split_parts(tape, shadow, axis, size // length)
        return shadow.with_layers(_cut(shadow.layers, axis, start, end))
    for layer in shadow.layers:
        if layer.shape[axis] > 1:
            tape.protect(layer, "channels cut at a number written into the code")
    index = (slice(None),) * axis + (slice(start, end, step),)
    return shadow.with_layers([layer[index] if layer.shape[axis] > 1 else layer for layer in shadow.layers])


def _cut(layers: Sequence[Labels], axis: int, start: int, end: int) -> list[Labels]:
    index = (slice(None),) * axis + (slice(start, end),)
    cuts = [layer[index] if layer.shape[axis] > 1 else layer for layer in layers]
    return [compressed(cut, [axis]) for cut in cuts if cut.size > 1]


def _split_parts(tape: Tape, shadow: Shadow, axis: int, parts: int) -> None:
    """Equal parts along an axis shrink alike: tied position by position if they would not otherwise."""
    for layer in shadow.layers:
        size = layer.shape[axis]
        if size > 1:
            shape = (*layer.shape[:axis], parts, size // parts, *layer.shape[axis + 1 :])
            tape.split(layer.reshape(shape), (axis, axis + 1), counted=True)


def _split(tape: Tape, call: Call) -> list[Shadow]:
    """split, split_with_sizes, chunk, tensor_split: sizes are read off the outputs.

    Equal parts shrink alike. Unequal ones shrink on their own; their sizes are stored or computed, and must follow.
    """
    x: torch.Tensor = call.args[0]
    shadow = tape.of(x)
    axis = axis_of(call.arg(2, "dim", 0), x.ndim)
    sizes = [part.shape[axis] for part in call.out]
    if len(sizes) == 1 or not shadow.layers:
        return [shadow] * len(sizes)
    varies = any(layer.shape[axis] > 1 for layer in shadow.layers)
    if varies and "with_sizes" in call.op and are_written_sizes(sizes):
        for layer in shadow.layers:
            if layer.shape[axis] > 1:
                tape.protect(layer, "channels cut at a number written into the code")
    elif len(set(sizes)) == 1:
        _split_parts(tape, shadow, axis, len(sizes))
    elif "with_sizes" in call.op:
        _keep_as_long(tape, shadow, axis, sizes)
    else:
        for layer in shadow.layers:
            if layer.shape[axis] > 1:
                tape.protect(layer, f"{call.op} into unequal parts")
    ends = np.cumsum(sizes)
    return [
        shadow.with_layers(_cut(shadow.layers, axis, int(end) - size, int(end)))
        for end, size in zip(ends, sizes, strict=True)
    ]


def _keep_as_long(tape: Tape, shadow: Shadow, axis: int, sizes: Sequence[int]) -> None:
    """Parts of one size among unequal ones stay equally long: one number in the code may speak of all of them."""
    ends = np.cumsum(sizes)
    for layer in shadow.layers:
        if layer.shape[axis] == 1:
            continue
        first: dict[int, Labels] = {}
        for size, end in zip(sizes, ends, strict=True):
            part = tape.vector(layer, axis)[int(end) - size : int(end)]
            if size and size in first:
                tape.equal_lengths.append((first[size], part, tape.op))
            first.setdefault(size, part)


def _unbind(tape: Tape, call: Call) -> list[Shadow]:
    """unbind: every position of an axis on its own."""
    x: torch.Tensor = call.args[0]
    shadow = tape.of(x)
    axis = axis_of(call.arg(1, "dim", 0), x.ndim)
    return [_picked(tape, shadow, axis, index) for index in range(len(call.out))]


def _cat(tape: Tape, call: Call) -> Shadow:
    """cat(tensors, dim): labels are joined along `dim`; along the other axes the tensors meet element-wise."""
    tensors = [tensor for tensor in call.args[0] if tensor.shape != (0,)]
    ndim = call.out.ndim
    axis = axis_of(call.arg(1, "dim", 0), ndim)
    operands = [operand(tape, tensor, ndim) for tensor in tensors]
    joined = _joined(tape, tensors, operands, axis)
    across = [
        Operand(
            tuple(layer for layer in item.layers if layer.shape[axis] == 1),
            (*item.sizes[:axis], 1, *item.sizes[axis + 1 :]),
            item.kind,
        )
        for item in operands
    ]
    layers = tape.merge(across)
    if joined is not None:
        layers.append(joined)
    shadows = [tape.of(tensor) for tensor in tensors]
    return Shadow(layers, origin(shadows), common_source(shadows))


def _joined(tape: Tape, tensors: Sequence[torch.Tensor], operands: Sequence[Operand], axis: int) -> Labels | None:
    """The layer along the axis of a concatenation; parts without labels there are fixed, or follow what they meet."""
    along = []
    for item in operands:
        layers = [layer for layer in item.layers if layer.shape[axis] > 1]
        for other in layers[1:]:
            tape.protect(other, "cat: another axis holds the channels")
        along.append(layers[0] if layers else None)
    free = [
        layer is None and item.kind is Kind.CONSTANT and _is_of_any_width(tensor, axis)
        for tensor, item, layer in zip(tensors, operands, along, strict=True)
    ]
    if all(layer is None for layer in along) and (axis == 0 or all(free) or not any(free)):
        return None
    ndim = len(operands[0].sizes)
    pieces = []
    for item, layer, is_free in zip(operands, along, free, strict=True):
        size = item.sizes[axis]
        part = np.full((1,) * ndim, FLEXIBLE if is_free else FIXED, np.int32) if layer is None else layer
        pieces.append(np.broadcast_to(part, [*part.shape[:axis], size, *part.shape[axis + 1 :]]))
    common = np.broadcast_shapes(*[(*piece.shape[:axis], 1, *piece.shape[axis + 1 :]) for piece in pieces])
    whole = [np.broadcast_to(piece, [*common[:axis], piece.shape[axis], *common[axis + 1 :]]) for piece in pieces]
    return np.concatenate(whole, axis)


def _is_of_any_width(constant: torch.Tensor, axis: int) -> bool:
    """True if a constant is alike along `axis` (a state of zeros), and its size there is not written into the code."""
    size = constant.shape[axis]
    if size == 1 or constant.is_meta or are_written_sizes([size]):
        return False
    return bool((constant == constant.narrow(axis, 0, 1)).all())


def _stack(tape: Tape, call: Call) -> Shadow:
    """stack(tensors, dim): along the old axes the tensors meet element-wise; the new axis is fixed."""
    tensors = call.args[0]
    axis = axis_of(call.arg(1, "dim", 0), call.out.ndim)
    operands = [operand(tape, tensor, tensor.ndim) for tensor in tensors]
    layers = tape.merge(operands)
    shadows = [tape.of(tensor) for tensor in tensors]
    return Shadow([np.expand_dims(layer, axis) for layer in layers], origin(shadows), common_source(shadows))


def _table(rule: Rule, names: str) -> dict[str, Rule]:
    return {f"aten.{name}": rule for name in names.split()}


RULES: dict[str, Rule] = {
    **_table(_select, "select"),
    **_table(_slice, "slice"),
    **_table(
        _split,
        "split split_with_sizes unsafe_split unsafe_split_with_sizes split_copy split_with_sizes_copy chunk "
        "unsafe_chunk tensor_split",
    ),
    **_table(_unbind, "unbind unbind_copy"),
    **_table(_cat, "cat _cat concat concatenate"),
    **_table(_stack, "stack"),
}
