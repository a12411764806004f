"""Rules of indexing, gathering, scattering and embeddings."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from gsprune.tracing.call import Call
from gsprune.tracing.rules.operands import Operand, along_axis, highest_kind, merge, operand
from gsprune.tracing.rules.registry import aten
from gsprune.tracing.shadow import EMPTY, Shadow, varying
from gsprune.tracing.tape import Tape

_REASON = "channels picked by indices written into the code"
_MASKS = (torch.bool, torch.uint8)


def _indexed_axes(indices: Sequence[torch.Tensor | None]) -> list[int]:
    """The axes of x that ``x[indices]`` indexes; a mask indexes as many axes as it has."""
    axes: list[int] = []
    place = 0
    for index in indices:
        span = index.ndim if index is not None and index.dtype in _MASKS else 1
        axes += range(place, place + span) if index is not None else ()
        place += span
    return axes


@aten("index _unsafe_index")
def _index(tape: Tape, call: Call) -> Shadow:
    """x[i, :, j, ...] with tensors: axes that are not indexed keep their labels, placed by NumPy's rules."""
    places: list[Any] = []
    for index in call.args[1]:
        if index is None:
            places.append(slice(None))
        elif index.dtype in _MASKS:
            places += [np.zeros(1, np.int64)] * index.ndim
        else:
            places.append(np.zeros((1,) * index.ndim, np.int64))
    rest = tape.protect_along(tape.of(call.args[0]), _indexed_axes(call.args[1]), _REASON)
    return rest.carry(lambda layer: layer[tuple(places)])


@aten("index_select")
def _index_select(tape: Tape, call: Call) -> Shadow:
    return tape.protect_along(tape.of(call.args[0]), [call.axis(1)], _REASON)


@aten("gather")
def _gather(tape: Tape, call: Call) -> Shadow:
    """gather(x, dim, index): the axes other than `dim` keep their labels if the index has their full size."""
    sizes = zip(call.args[0].shape, call.args[2].shape, strict=False)
    uncovered = [axis for axis, (own, other) in enumerate(sizes) if own != other]
    return tape.protect_along(tape.of(call.args[0]), [call.axis(1), *uncovered], _REASON)


@aten("_pack_padded_sequence")
def _pack(tape: Tape, call: Call) -> list[Shadow]:
    """The rows of sequences (batch and time, in any order, then features) without padding, then the batch sizes."""
    rows = tape.protect_along(tape.of(call.args[0]), (0, 1), _REASON)
    return [rows.carry(lambda layer: layer[0]), EMPTY]


def _placed(item: Operand, axes: Sequence[int]) -> Operand:
    """An operand with new axes of size 1, which are `axes` of the result."""
    rest = [axis for axis in range(len(item.sizes) + len(axes)) if axis not in axes]
    size_of = dict(zip(rest, item.sizes, strict=True))
    sizes = tuple(size_of.get(axis, 1) for axis in range(len(rest) + len(axes)))
    layers = [np.expand_dims(layer, tuple(axes)) for layer in item.layers]
    return Operand(layers, sizes, item.kind, tuple(rest[axis] for axis in item.uneven))


def _written(tape: Tape, call: Call, value: Operand, axes: Sequence[int]) -> Shadow:
    """The first argument, into which `value` was written at positions of `axes`. On other axes, channels meet."""
    own = operand(tape, call.args[0], call.args[0].ndim)
    if any(layer.shape[axis] > 1 for layer in (*own.layers, *value.layers) for axis in axes):
        return _put(tape, call)
    return Shadow(merge(tape, [own, value]), max(own.kind, value.kind))


@aten("index_put _index_put_impl _unsafe_index_put")
def _index_put(tape: Tape, call: Call) -> Shadow:
    """x[i, :, j] = value: channels of x and of the values meet on the axes that are not indexed.

    A number may also be written at a mask of channels (``y[y < 0] = 0``).
    """
    x, indices, value = call.args[:3]
    used, axes = [index for index in indices if index is not None], _indexed_axes(indices)
    shadow, rest = tape.of(x), [axis for axis in range(x.ndim) if axis not in axes]
    has_labels = any(layer.shape[axis] > 1 for layer in shadow.layers for axis in axes)
    if has_labels or any(tape.of(index).layers for index in used):
        if value.numel() > 1 or len(used) > 1 or used[0].dtype not in _MASKS:
            return _put(tape, call)
        mask = _placed(operand(tape, used[0], used[0].ndim), rest)
        kind = highest_kind([shadow, tape.of(used[0]), tape.of(value)])
        return Shadow(merge(tape, [operand(tape, x, x.ndim), mask]), kind)
    if value.numel() == 1:
        return shadow
    values = _on_axes_of_x(operand(tape, value, value.ndim), x.ndim, axes, used)
    return _put(tape, call) if values is None else _written(tape, call, values, axes)


def _on_axes_of_x(value: Operand, ndim: int, axes: Sequence[int], indices: Sequence[torch.Tensor]) -> Operand | None:
    """The `value` of ``x[indices] = value`` on the axes of x, with size 1 along the indexed `axes`.

    None if its channels are on an axis of the indices. NumPy puts the axes of the indices in the place of the indexed
    axes, or first if these are not neighbours.
    """
    first = axes[0] if axes[-1] - axes[0] == len(axes) - 1 else 0
    over = range(first, first + max(1 if index.dtype in _MASKS else index.ndim for index in indices))
    lead = ndim - len(axes) + len(over) - len(value.sizes)  # axes that the value lacks: it is broadcast along them
    if lead < 0:
        return None
    whole = _placed(value, range(lead))
    kept = [axis for axis in range(len(whole.sizes)) if axis not in over]
    free = [layer for layer in whole.layers if all(layer.shape[axis] == 1 for axis in over)]
    if sum(layer.max() > 0 for layer in whole.layers) > sum(layer.max() > 0 for layer in free):
        return None
    layers = [layer.squeeze(tuple(over)) for layer in free]
    uneven = tuple(kept.index(axis) for axis in whole.uneven if axis in kept)
    return _placed(Operand(layers, tuple(whole.sizes[axis] for axis in kept), value.kind, uneven), axes)


@aten("select_scatter slice_scatter")
def _part_scatter(tape: Tape, call: Call) -> Shadow:
    """select_scatter(x, part, dim, ...) and slice_scatter: copies of x with another part."""
    part, axis = call.args[1], call.axis(2)
    item = operand(tape, part, part.ndim)
    return _written(tape, call, _placed(item, [axis]) if part.ndim < call.out.ndim else item, [axis])


@aten("masked_scatter")
def _masked_scatter(tape: Tape, call: Call) -> Shadow:
    """masked_scatter(x, mask, source) writes whole rows if the mask is expanded along the last axis."""
    x, mask, source = call.args[:3]
    ndim, inputs = call.out.ndim, [tape.of(tensor) for tensor in call.args[:3]]
    layers = [layer for shadow in inputs if shadow.layers for layer in shadow.layers if layer.max() > 0]
    writes_rows = mask.ndim and source.ndim and (mask.shape[-1] == 1 or mask.stride(-1) == 0)
    is_last = all(varying(layer) == (layer.ndim - 1,) for layer in layers)
    if not writes_rows or not is_last or source.shape[-1] != call.out.shape[-1]:
        return _put(tape, call)
    item = operand(tape, source, max(ndim, source.ndim))
    rows = Operand(
        [along_axis(layer, ndim - 1, ndim) for layer in item.layers if layer.shape[-1] > 1],
        (*(1,) * (ndim - 1), source.shape[-1]),
        item.kind,
        tuple(ndim - 1 for axis in item.uneven if axis == len(item.sizes) - 1),
    )
    return Shadow(merge(tape, [operand(tape, x, ndim), rows]), highest_kind(inputs))


@aten("put")
def _put(tape: Tape, call: Call) -> Shadow:
    """Writes of values at positions: all channels keep their width."""
    shadows = [shadow for tensor in call.tensors() if (shadow := tape.of(tensor)).layers]
    for shadow in shadows:
        tape.protect(shadow, f"{call.op} has no rule")
    return EMPTY if shadows else tape.of(call.args[0])


@aten("scatter scatter_add scatter_reduce index_add index_copy index_fill index_reduce")
def _scatter(tape: Tape, call: Call) -> Shadow:
    """scatter(x, dim, index, src), index_add(x, dim, index, source): channels on other axes meet element-wise."""
    x, axis = call.args[0], call.axis(1)
    sources = [value for value in (*call.args[3:], *call.kwargs.values()) if isinstance(value, torch.Tensor)]
    for tensor in (x, *sources):
        if tensor.ndim != x.ndim or any(layer.shape[axis] > 1 for layer in tape.of(tensor).layers):
            return _put(tape, call)
    layers = merge(tape, [operand(tape, tensor, x.ndim) for tensor in (x, *sources)])
    return Shadow(layers, highest_kind([tape.of(tensor) for tensor in (x, *sources)]))


@aten("one_hot nonzero bincount multinomial masked_select unique_dim _unique2")
def _numbered(tape: Tape, call: Call) -> Shadow:
    """Operations whose output size depends on values or arguments: all channels are protected."""
    for tensor in call.tensors():
        tape.protect(tape.of(tensor), f"{call.op} over channels")
    return EMPTY


@aten("tril triu")
def _triangle(tape: Tape, call: Call) -> Shadow:
    """``tril`` and ``triu``: a mask of positions; channels on the last two axes keep their width."""
    return tape.protect_along(tape.of(call.args[0]), (-2, -1), f"{call.op} over channels")


def _opened_columns(tape: Tape, weight: torch.Tensor) -> Shadow:
    """The shadow of an embedding's weight: its columns are opened, its rows (the vocabulary) protected."""
    columns = tape.protect_along(tape.of(weight), [0], "rows of an embedding")
    for layer in columns.layers:
        tape.open(layer)
    return columns


@aten("embedding")
def _embedding(tape: Tape, call: Call) -> Shadow:
    """embedding(weight, indices): the channels of the indices, then the columns of the weight."""
    columns, axis = _opened_columns(tape, call.args[0]), call.args[1].ndim
    rows = [layer[..., None] for layer in tape.of(call.args[1]).layers if layer.max() > 0]
    return Shadow([*rows, *(along_axis(layer, axis, axis + 1) for layer in columns.layers)])


@aten("_embedding_bag _embedding_bag_forward_only")
def _embedding_bag(tape: Tape, call: Call) -> list[Shadow]:
    """The bags of ``_embedding_bag(weight, indices, offsets, ...)``: (bags, width)."""
    return [Shadow(_opened_columns(tape, call.args[0]).layers)]
