"""Rules of operations that move elements: views, permutations, repetitions, padding."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from gsprune.tracing.call import Call
from gsprune.tracing.rules.operands import aligned, flexible
from gsprune.tracing.rules.registry import aten
from gsprune.tracing.shadow import EMPTY, FREE, Kind, Labels, Shadow, reshaped
from gsprune.tracing.tape import Tape


@aten(
    "alias clone contiguous detach lift lift_fresh _to_copy to type_as native_dropout dropout feature_dropout "
    "alpha_dropout resolve_conj resolve_neg positive _conj view.dtype"
)
def _same(tape: Tape, call: Call) -> Shadow:
    """The output is the input, element by element."""
    return tape.of(call.args[0])


@aten(
    "view _unsafe_view view_copy view_as reshape _reshape_alias _reshape_copy reshape_as flatten unflatten squeeze "
    "ravel"
)
def _view(tape: Tape, call: Call) -> Shadow:
    """Any reshaping: the new shape is read off the output."""
    shadow = tape.of(call.args[0])
    old, new = call.shape_before or tuple(call.args[0].shape), tuple(call.out.shape)

    def move(layer: Labels) -> Labels:
        result, splits = reshaped(layer, old, new)
        for axes in splits:
            tape.split(result, axes)
        return result

    return shadow if old == new or not shadow.layers else shadow.carry(move)


@aten("permute permute_copy transpose swapaxes swapdims t numpy_T movedim moveaxis unsqueeze flip rot90")
def _move(tape: Tape, call: Call) -> Shadow:
    """Axes that are permuted or flipped: torch moves the labels as it has moved the data."""
    move = getattr(torch.ops.aten, call.op.removeprefix("aten."))

    def moved(layer: Labels) -> Labels:
        labels: Labels = move(torch.from_numpy(layer.copy()), *call.args[1:], **call.kwargs).numpy()
        return labels

    return tape.of(call.args[0]).carry(moved)


@aten("expand expand_as broadcast_to")
def _expand(tape: Tape, call: Call) -> Shadow:
    """``expand``: an axis that grows from size 1 has flexible labels, as in broadcasting."""
    return _repeated(tape, call, [1] * call.out.ndim)


@aten("repeat tile")
def _repeat(tape: Tape, call: Call) -> Shadow:
    """``repeat``: the labels along a varying axis are repeated, and so stay tied."""
    return _repeated(tape, call, [int(count) for count in call.arg(1, "repeats")])


def _repeated(tape: Tape, call: Call, counts: Sequence[int]) -> Shadow:
    """Labels repeated along the axes that vary; axes that grow from size 1 get flexible labels."""
    x, ndim = call.args[0], call.out.ndim
    shadow = tape.of(x)
    layers = []
    for layer in shadow.layers:
        whole = aligned(layer, ndim)
        repeats = [count if size > 1 else 1 for count, size in zip(counts, whole.shape, strict=True)]
        layers.append(whole if max(repeats) == 1 else np.tile(whole, repeats))
    sizes = (1,) * (ndim - x.ndim) + tuple(x.shape)
    for axis, (old, new) in enumerate(zip(sizes, call.out.shape, strict=True)):
        if old == 1 < new:
            layers.append(flexible(new, axis, ndim))
    return shadow.with_layers(layers)


@aten("repeat_interleave")
def _repeat_interleave(tape: Tape, call: Call) -> Shadow:
    """repeat_interleave(x, count, dim) along one axis."""
    shadow, count = tape.of(call.args[0]), call.arg(1, "repeats")
    if not isinstance(count, int) or call.arg(2, "dim") is None:
        tape.protect(shadow, f"{call.op} with counts in a tensor")
        return EMPTY
    axis = call.axis(2)
    return shadow.carry(lambda layer: np.repeat(layer, count, axis) if layer.shape[axis] > 1 else layer)


@aten("roll")
def _roll(tape: Tape, call: Call) -> Shadow:
    """roll(x, shifts, dims): channels are protected, since the shift is a number in the code."""
    shadow = tape.of(call.args[0])
    shifts, axes = tuple(call.arg(1, "shifts")), tuple(call.arg(2, "dims", ()))
    if not axes:
        tape.protect(shadow, f"{call.op} over all axes")
        return EMPTY
    tape.protect_along(shadow, axes, "channels rolled by a number written into the code")
    return shadow.carry(lambda layer: np.roll(layer, shifts, axes))


@aten(
    "constant_pad_nd pad reflection_pad1d reflection_pad2d reflection_pad3d replication_pad1d replication_pad2d "
    "replication_pad3d _pad_circular"
)
def _pad(tape: Tape, call: Call) -> Shadow:
    """Padding of any kind: added channels are fixed; positions are not labelled."""
    shadow, ndim = tape.of(call.args[0]), call.out.ndim
    pads = call.arg(1, "pad") if call.arg(1, "pad") is not None else call.arg(1, "padding")
    pairs = [(int(low), int(high)) for low, high in zip(pads[::2], pads[1::2], strict=True)]
    widths = [*[(0, 0)] * (ndim - len(pairs)), *reversed(pairs)]
    cropped = [axis for axis, pair in enumerate(widths) if min(pair) < 0]
    shadow = tape.protect_along(shadow, cropped, "channels cropped by a number written into the code")

    def padded(layer: Labels) -> Labels:
        return np.pad(layer, [pair if size > 1 else (0, 0) for pair, size in zip(widths, layer.shape, strict=True)])

    return shadow.carry(padded)


@aten("as_strided")
def _as_strided(tape: Tape, call: Call) -> Shadow:
    """``as_strided`` to the same shape is a copy if no stride of an axis longer than 1 changes; others protect."""
    shadow, out = tape.of(call.args[0]), call.out
    is_longer = [size > 1 for size in out.shape]
    if call.shape_before == tuple(out.shape) and all(
        before == after
        for before, after, longer in zip(call.stride_before, out.stride(), is_longer, strict=True)
        if longer
    ):
        return shadow
    tape.protect(shadow, f"{call.op} to another shape")
    return EMPTY


@aten("diagonal")
def _diagonal(tape: Tape, call: Call) -> Shadow:
    """diagonal(x, offset, dim1, dim2): channels along either axis are protected."""
    axes = call.axis(2, "dim1"), call.axis(3, "dim2", 1)
    shadow = tape.protect_along(tape.of(call.args[0]), axes, f"{call.op} over channels")
    return shadow.carry(lambda layer: np.expand_dims(layer.squeeze(axes), -1))


@aten("unfold")
def _unfold(tape: Tape, call: Call) -> Shadow:
    """Tensor.unfold(dim, size, step): windows are a new last axis."""
    shadow = tape.protect_along(tape.of(call.args[0]), [call.axis(1, "dimension")], "windows over channels")
    return shadow.carry(lambda layer: layer[..., None])


@aten("zeros_like ones_like full_like empty_like rand_like randn_like randint_like")
def _like(tape: Tape, call: Call) -> Shadow:
    """A constant as wide as the argument."""
    return Shadow(tape.of(call.args[0]).layers, Kind.CONSTANT)


@aten("new_zeros new_ones new_full new_empty new_empty_strided")
def _free(tape: Tape, call: Call) -> Shadow:
    """A constant whose size the forward chose."""
    return FREE
