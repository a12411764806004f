"""Rules of indexing, gathering, scattering and embeddings."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from gsprune.tracing.call import Call
from gsprune.tracing.rules.operands import along_axis, highest_kind, merge, operand
from gsprune.tracing.rules.registry import aten
from gsprune.tracing.shadow import EMPTY, Shadow
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


@aten("index_put _index_put_impl _unsafe_index_put")
def _index_put(tape: Tape, call: Call) -> Shadow:
    """x[i, :, j] = value: a single number may be written along axes without channels (``h[done] = 0``)."""
    shadow = tape.of(call.args[0])
    is_free = all(layer.shape[axis] == 1 for layer in shadow.layers for axis in _indexed_axes(call.args[1]))
    return shadow if is_free and call.args[2].numel() == 1 else _put(tape, call)


@aten("masked_scatter put")
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
    """embedding(weight, indices)."""
    columns, axis = _opened_columns(tape, call.args[0]), call.args[1].ndim
    return Shadow([along_axis(layer, axis, axis + 1) for layer in columns.layers])


@aten("_embedding_bag _embedding_bag_forward_only")
def _embedding_bag(tape: Tape, call: Call) -> list[Shadow]:
    """The bags of ``_embedding_bag(weight, indices, offsets, ...)``: (bags, width)."""
    return [Shadow(_opened_columns(tape, call.args[0]).layers)]
