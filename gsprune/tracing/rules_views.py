"""Rules of operations that move elements: views, permutations, repetitions, padding."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from gsprune.tracing.rules_common import Call, Rule, aligned, axis_of, channels_out
from gsprune.tracing.shadow import EMPTY, FLEXIBLE, Kind, Shadow, reshaped
from gsprune.tracing.tape import Tape

__all__ = ["RULES", "permuted"]


def _input(tape: Tape, call: Call) -> tuple[torch.Tensor, Shadow]:
    x: torch.Tensor = call.args[0]
    return x, tape.of(x)


def _same(tape: Tape, call: Call) -> Shadow:
    """The output is the input, element by element (clone, detach, to, contiguous, dropout in eval mode)."""
    return tape.of(call.args[0])


def _view(tape: Tape, call: Call) -> Shadow:
    """Any reshaping: the new shape is read off the output."""
    x, shadow = _input(tape, call)
    old, new = tuple(x.shape), tuple(call.out.shape)
    if old == new or not shadow.layers:
        return shadow
    layers = []
    for layer in shadow.layers:
        result, splits = reshaped(layer, old, new)
        for axes in splits:
            tape.split(result, axes)
        if result.size > 1:
            layers.append(result)
    return shadow.with_layers(layers)


def permuted(shadow: Shadow, order: Sequence[int]) -> Shadow:
    """A shadow whose axis i is the former axis order[i]."""
    return shadow.with_layers([layer.transpose(order) for layer in shadow.layers])


def _permute(tape: Tape, call: Call) -> Shadow:
    x, shadow = _input(tape, call)
    return permuted(shadow, [axis_of(axis, x.ndim) for axis in call.arg(1, "dims")])


def _transpose(tape: Tape, call: Call) -> Shadow:
    x, shadow = _input(tape, call)
    order = list(range(x.ndim))
    if x.ndim == 0:
        return shadow
    first, second = axis_of(call.arg(1, "dim0", 0), x.ndim), axis_of(call.arg(2, "dim1", 1), x.ndim)
    order[first], order[second] = second, first
    return permuted(shadow, order)


def _t(tape: Tape, call: Call) -> Shadow:
    x, shadow = _input(tape, call)
    return permuted(shadow, range(x.ndim)[::-1])


def _movedim(tape: Tape, call: Call) -> Shadow:
    _, shadow = _input(tape, call)
    source, target = call.args[1:3]
    source, target = ([source], [target]) if isinstance(source, int) else (source, target)
    return shadow.with_layers([np.moveaxis(layer, source, target) for layer in shadow.layers])


def _expand(tape: Tape, call: Call) -> Shadow:
    """Expand: an axis that grows from size 1 follows whatever it meets, as in broadcasting."""
    x, shadow = _input(tape, call)
    ndim = call.out.ndim
    layers = [aligned(layer, ndim) for layer in shadow.layers]
    sizes = (1,) * (ndim - x.ndim) + tuple(x.shape)
    for axis, (old, new) in enumerate(zip(sizes, call.out.shape, strict=True)):
        if old != new:
            layers.append(channels_out(np.full(new, FLEXIBLE, np.int32), axis, ndim))
    return shadow.with_layers(layers)


def _repeat(tape: Tape, call: Call) -> Shadow:
    """``repeat`` (``tile``): the labels along a varying axis are repeated, and so stay tied.

    An axis that grows from size 1 follows whatever it meets.
    """
    x, shadow = _input(tape, call)
    counts = [int(count) for count in call.arg(1, "repeats")]
    ndim = len(counts)
    layers = []
    for layer in shadow.layers:
        whole = aligned(layer, ndim)
        layers.append(
            np.tile(whole, [count if size > 1 else 1 for count, size in zip(counts, whole.shape, strict=True)])
        )
    for axis, (count, size) in enumerate(zip(counts, (1,) * (ndim - x.ndim) + tuple(x.shape), strict=True)):
        if size == 1 < count:
            layers.append(channels_out(np.full(count, FLEXIBLE, np.int32), axis, ndim))
    return shadow.with_layers(layers)


def _repeat_interleave(tape: Tape, call: Call) -> Shadow:
    """repeat_interleave(x, count, dim) along one axis."""
    x, shadow = _input(tape, call)
    count, dim = call.arg(1, "repeats"), call.arg(2, "dim")
    if not isinstance(count, int) or dim is None:
        tape.protect_shadow(shadow, f"{call.op} with counts in a tensor")
        return EMPTY
    axis = axis_of(dim, x.ndim)
    return shadow.with_layers(
        [np.repeat(layer, count, axis) if layer.shape[axis] > 1 else layer for layer in shadow.layers]
    )


def _unsqueeze(tape: Tape, call: Call) -> Shadow:
    _, shadow = _input(tape, call)
    axis = axis_of(call.arg(1, "dim"), call.out.ndim)
    return shadow.with_layers([np.expand_dims(layer, axis) for layer in shadow.layers])


def _flip(tape: Tape, call: Call) -> Shadow:
    x, shadow = _input(tape, call)
    axes = tuple(axis_of(axis, x.ndim) for axis in call.arg(1, "dims"))
    return shadow.with_layers([np.flip(layer, axes) for layer in shadow.layers])


def _roll(tape: Tape, call: Call) -> Shadow:
    """roll(x, shifts, dims): a shift along channels is a number, yet holds for any width: labels move along."""
    x, shadow = _input(tape, call)
    shifts, dims = call.arg(1, "shifts"), call.arg(2, "dims", ())
    if not dims:
        tape.protect_shadow(shadow, f"{call.op} over all axes")
        return EMPTY
    axes = [axis_of(axis, x.ndim) for axis in dims]
    for layer in shadow.layers:
        if any(layer.shape[axis] > 1 for axis in axes):
            tape.protect(layer, "channels rolled by a number written into the code")
    return shadow.with_layers([np.roll(layer, tuple(shifts), tuple(axes)) for layer in shadow.layers])


def _rot90(tape: Tape, call: Call) -> Shadow:
    x, shadow = _input(tape, call)
    first, second = (axis_of(axis, x.ndim) for axis in call.arg(2, "dims", (0, 1)))
    return shadow.with_layers([np.rot90(layer, call.arg(1, "k", 1), (first, second)) for layer in shadow.layers])


def _pad(tape: Tape, call: Call) -> Shadow:
    """Padding of any kind: added channels are fixed; positions are not labelled."""
    _, shadow = _input(tape, call)
    pads = call.arg(1, "pad") if call.arg(1, "pad") is not None else call.arg(1, "padding")
    layers = []
    for layer in shadow.layers:
        widths = [(0, 0)] * layer.ndim
        for index in range(len(pads) // 2):
            axis = layer.ndim - 1 - index
            if layer.shape[axis] > 1:
                widths[axis] = (int(pads[2 * index]), int(pads[2 * index + 1]))
        if any(low < 0 or high < 0 for low, high in widths):
            tape.protect(layer, "channels cropped by a number written into the code")
            continue
        layers.append(np.pad(layer, widths))
    return shadow.with_layers(layers)


def _as_strided(tape: Tape, call: Call) -> Shadow:
    """as_strided to the same shape is a copy; anything else protects."""
    x, shadow = _input(tape, call)
    if x.shape == call.out.shape and x.stride() == call.out.stride():
        return shadow
    tape.protect_shadow(shadow, f"{call.op} to another shape")
    return EMPTY


def _diagonal(tape: Tape, call: Call) -> Shadow:
    """diagonal(x, offset, dim1, dim2): labels along either axis are protected, others carry."""
    x, shadow = _input(tape, call)
    pair = [axis_of(call.arg(2, "dim1", 0), x.ndim), axis_of(call.arg(3, "dim2", 1), x.ndim)]
    layers = []
    for layer in shadow.layers:
        if any(layer.shape[axis] > 1 for axis in pair):
            tape.protect(layer, f"{call.op} over channels")
        else:
            layers.append(np.expand_dims(layer.squeeze(tuple(pair)), -1))
    return shadow.with_layers(layers)


def _unfold(tape: Tape, call: Call) -> Shadow:
    """Tensor.unfold(dim, size, step): windows are a new last axis."""
    x, shadow = _input(tape, call)
    axis = axis_of(call.arg(1, "dimension"), x.ndim)
    layers = []
    for layer in shadow.layers:
        if layer.shape[axis] > 1:
            tape.protect(layer, "windows over channels")
        else:
            layers.append(layer[..., None])
    return shadow.with_layers(layers)


def _like(tape: Tape, call: Call) -> Shadow:
    """zeros_like and its kin have the width of their argument."""
    return Shadow(tape.of(call.args[0]).layers, Kind.CONSTANT)


def _free(tape: Tape, call: Call) -> Shadow:
    """new_zeros and its kin: a constant of the size the forward asked for."""
    return Shadow((), Kind.CONSTANT)


def _table(rule: Rule, names: str) -> dict[str, Rule]:
    return {f"aten.{name}": rule for name in names.split()}


RULES: dict[str, Rule] = {
    **_table(
        _same,
        "alias clone contiguous detach lift lift_fresh _to_copy to type_as native_dropout dropout feature_dropout "
        "alpha_dropout resolve_conj resolve_neg positive _conj view.dtype",
    ),
    **_table(
        _view,
        "view _unsafe_view view_copy view_as reshape _reshape_alias _reshape_copy reshape_as flatten unflatten squeeze "
        "ravel",
    ),
    **_table(_permute, "permute permute_copy"),
    **_table(_transpose, "transpose swapaxes swapdims"),
    **_table(_t, "t numpy_T"),
    **_table(_movedim, "movedim moveaxis"),
    **_table(_expand, "expand expand_as broadcast_to"),
    **_table(_repeat, "repeat tile"),
    **_table(_repeat_interleave, "repeat_interleave"),
    **_table(_unsqueeze, "unsqueeze"),
    **_table(_flip, "flip"),
    **_table(_roll, "roll"),
    **_table(_rot90, "rot90"),
    **_table(
        _pad,
        "constant_pad_nd pad reflection_pad1d reflection_pad2d reflection_pad3d replication_pad1d replication_pad2d "
        "replication_pad3d _pad_circular",
    ),
    **_table(_as_strided, "as_strided"),
    **_table(_diagonal, "diagonal"),
    **_table(_unfold, "unfold"),
    **_table(_like, "zeros_like ones_like full_like empty_like rand_like randn_like randint_like"),
    **_table(_free, "new_zeros new_ones new_full new_empty new_empty_strided"),
}
