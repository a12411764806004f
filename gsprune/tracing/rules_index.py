"""Rules of indexing, gathering, scattering and embeddings."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from gsprune.tracing.rules_common import Call, Rule, axis_of, channels_out, operand, origin
from gsprune.tracing.shadow import EMPTY, Labels, Shadow, varying
from gsprune.tracing.tape import Tape

__all__ = ["RULES"]

_REASON = "channels picked by indices written into the code"


def _index(tape: Tape, call: Call) -> Shadow:
    """x[i, :, j, ...] with tensors: axes that are not indexed carry, where NumPy's rules put them."""
    x, indices = call.args[0], list(call.args[1])
    places: list[Any] = []
    indexed: list[int] = []
    for index in indices:
        axis = len(places)
        if index is None:
            places.append(slice(None))
        elif index.dtype in (torch.bool, torch.uint8):
            places.extend([np.zeros(1, np.int64)] * index.ndim)
            indexed.extend(range(axis, axis + index.ndim))
        else:
            places.append(np.zeros((1,) * index.ndim, np.int64))
            indexed.append(axis)
    layers = []
    for layer in tape.of(x).layers:
        if any(layer.shape[axis] > 1 for axis in indexed):
            tape.protect(layer, _REASON)
            continue
        layers.append(layer[tuple(places)])
    return tape.of(x).with_layers(layers)


def _index_select(tape: Tape, call: Call) -> Shadow:
    """index_select(x, dim, index), and take-alikes along one axis."""
    x = call.args[0]
    axis = axis_of(call.args[1], x.ndim)
    layers = []
    for layer in tape.of(x).layers:
        if layer.shape[axis] > 1:
            tape.protect(layer, _REASON)
        else:
            layers.append(layer)
    return tape.of(x).with_layers(layers)


def _gather(tape: Tape, call: Call) -> Shadow:
    """gather(x, dim, index): like the axes it does not gather along, if the index covers them."""
    x, index = call.args[0], call.args[2]
    axis = axis_of(call.args[1], x.ndim)
    layers: list[Labels] = []
    for layer in tape.of(x).layers:
        over = varying(layer)
        if axis in over or any(index.shape[other] != x.shape[other] for other in over):
            tape.protect(layer, _REASON)
        else:
            layers.append(layer)
    return tape.of(x).with_layers(layers)


def _index_put(tape: Tape, call: Call) -> Shadow:
    """x[i, :, j] = value: one number may be written at any positions that are not channels (``h[done] = 0``)."""
    x, indices, value = call.args[0], call.args[1], call.args[2]
    axes: list[int] = []
    place = 0
    for index in indices:
        span = index.ndim if index is not None and index.dtype in (torch.bool, torch.uint8) else 1
        if index is not None:
            axes.extend(range(place, place + span))
        place += span
    free = all(layer.shape[axis] == 1 for layer in tape.of(x).layers for axis in axes)
    return tape.of(x) if free and value.numel() == 1 else _put(tape, call)


def _put(tape: Tape, call: Call) -> Shadow:
    """Writes of values at places (scatter, index_put, index_copy, masked_scatter): all that varies keeps its width.

    Where the written values have the labels of what they replace, nothing changes.
    """
    x = call.args[0]
    tensors = [tensor for tensor in call.tensors() if tape.of(tensor).layers]
    if not tensors:
        return tape.of(x)
    for tensor in tensors:
        tape.protect_shadow(tape.of(tensor), f"{call.op} has no rule")
    return EMPTY


def _along_put(tape: Tape, call: Call) -> Shadow:
    """scatter(x, dim, index, src), index_add(x, dim, index, source): channels on other axes meet element-wise."""
    x = call.args[0]
    axis = axis_of(call.args[1], x.ndim)
    sources = [value for value in (*call.args[3:], *call.kwargs.values()) if isinstance(value, torch.Tensor)]
    for tensor in (x, *sources):
        if tensor.ndim != x.ndim or any(layer.shape[axis] > 1 for layer in tape.of(tensor).layers):
            return _put(tape, call)
    operands = [operand(tape, tensor, x.ndim) for tensor in (x, *sources)]
    return Shadow(tape.merge(operands), origin([tape.of(tensor) for tensor in (x, *sources)]))


def _one_hot(tape: Tape, call: Call) -> Shadow:
    """Integers become numbers of the forward's own making."""
    for tensor in call.tensors():
        tape.protect_shadow(tape.of(tensor), f"{call.op} over channels")
    return EMPTY


def _triangle(tape: Tape, call: Call) -> Shadow:
    """``tril`` and ``triu``: a mask of positions; channels on the last two axes keep their width."""
    x = call.args[0]
    layers = []
    for layer in tape.of(x).layers:
        if varying(layer)[-1] >= layer.ndim - 2:
            tape.protect(layer, f"{call.op} over channels")
        else:
            layers.append(layer)
    return tape.of(x).with_layers(layers)


def _embedding(tape: Tape, call: Call) -> Shadow:
    """embedding(weight, indices): the width is opened, the vocabulary stays."""
    weight, indices = call.args[:2]
    shadow = tape.of(weight)
    layers = []
    for layer in shadow.layers:
        if varying(layer) == (1,):
            tape.open(layer)
            layers.append(channels_out(layer.reshape(-1), indices.ndim, indices.ndim + 1))
        else:
            tape.protect(layer, "rows of an embedding")
    return Shadow(layers)


def _embedding_bag(tape: Tape, call: Call) -> Sequence[Shadow]:
    """The bags of ``_embedding_bag(weight, indices, offsets, ...)``: (bags, width)."""
    weight = call.args[0]
    columns = [layer for layer in tape.of(weight).layers if varying(layer) == (1,)]
    for layer in tape.of(weight).layers:
        if varying(layer) == (1,):
            tape.open(layer)
        else:
            tape.protect(layer, "rows of an embedding")
    return [Shadow(columns)]


def _table(rule: Rule, *names: str) -> dict[str, Rule]:
    return {f"aten.{name}": rule for name in names}


RULES: dict[str, Rule] = {
    **_table(_index, "index", "_unsafe_index"),
    **_table(_index_select, "index_select"),
    **_table(_gather, "gather"),
    **_table(_index_put, "index_put", "_index_put_impl", "_unsafe_index_put"),
    **_table(_put, "masked_scatter", "put"),
    **_table(
        _along_put, "scatter", "scatter_add", "scatter_reduce", "index_add", "index_copy", "index_fill", "index_reduce"
    ),
    **_table(_one_hot, "one_hot", "nonzero", "bincount", "multinomial", "masked_select", "unique_dim", "_unique2"),
    **_table(_embedding, "embedding"),
    **_table(_embedding_bag, "_embedding_bag", "_embedding_bag_forward_only"),
    **_table(_triangle, "tril", "triu"),
}
