"""Operands: shadows aligned to the axes of an operation's output, and the rules for layers that meet there."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch

from gsprune.tracing.call import Call
from gsprune.tracing.constants import UNEVEN, uneven_axes
from gsprune.tracing.shadow import EMPTY, FLEXIBLE, Kind, Labels, Shadow, overlap, varying
from gsprune.tracing.tape import Tape

__all__ = [
    "Operand",
    "aligned",
    "along_axis",
    "are_biased",
    "common_source",
    "elementwise",
    "flexible",
    "highest_kind",
    "merge",
    "operand",
    "protect_all",
    "row_operand",
]


class Operand(NamedTuple):
    """A tensor's layers, sizes and kind, aligned to the axes of the operation's output.

    `uneven` are the axes of a constant along which its values differ (``arange``, ``linspace``).
    """

    layers: Sequence[Labels]
    sizes: tuple[int, ...]
    kind: Kind
    uneven: tuple[int, ...] = ()


def aligned(layer: Labels, ndim: int) -> Labels:
    """A layer broadcast to `ndim` axes, counted from the last."""
    return layer if layer.ndim == ndim else layer.reshape((1,) * (ndim - layer.ndim) + layer.shape)


def along_axis(labels: Labels, axis: int, ndim: int) -> Labels:
    """(size,) labels as a layer that varies over `axis`."""
    return labels.reshape([-1 if other == axis else 1 for other in range(ndim)])


def flexible(size: int, axis: int, ndim: int) -> Labels:
    """A layer of flexible labels along `axis`."""
    return along_axis(np.full(size, FLEXIBLE, np.int32), axis, ndim)


def operand(tape: Tape, tensor: torch.Tensor, ndim: int) -> Operand:
    """A tensor as an operand of an element-wise operation on `ndim` axes."""
    shadow = tape.of(tensor)
    lead = ndim - tensor.ndim
    uneven = tuple(axis + lead for axis in uneven_axes(tensor, shadow))
    return Operand(
        [aligned(layer, ndim) for layer in shadow.layers], (1,) * lead + tuple(tensor.shape), shadow.kind, uneven
    )


def row_operand(tape: Tape, vector: torch.Tensor, axis: int, ndim: int) -> Operand:
    """A vector of one value per channel as an operand along `axis`."""
    shadow = tape.of(vector)
    sizes = tuple(vector.numel() if other == axis else 1 for other in range(ndim))
    return Operand([along_axis(layer, axis, ndim) for layer in shadow.layers], sizes, shadow.kind)


def highest_kind(shadows: Sequence[Shadow]) -> Kind:
    """The kind of a tensor that is computed from all of these."""
    return max((shadow.kind for shadow in shadows), default=Kind.CONSTANT)


def common_source(shadows: Sequence[Shadow]) -> str | None:
    """The weight that all of these are products of, or None."""
    first = shadows[0].source if shadows and shadows[0].kind is Kind.ACTIVATION else None
    return first if all(shadow.source == first for shadow in shadows) else None


def are_biased(layers: Sequence[Labels], biases: Sequence[Labels]) -> bool:
    """True if every layer of a weight's product has a bias of its own, so that its removed channels stay zero.

    Channels that a product carries over (rows of a transposed tensor) have none. The bias of other channels fills them.
    """
    return all(any(overlap(layer, bias) for bias in biases) for layer in layers)


def elementwise(tape: Tape, tensors: Sequence[torch.Tensor], shape: Sequence[int]) -> Shadow:
    """The shadow of an element-wise function of `tensors`, with the output shape `shape`."""
    ndim = len(shape)
    shadows = [tape.of(tensor) for tensor in tensors]
    kind = highest_kind(shadows)
    if len(tensors) == 1 and tensors[0].ndim == ndim:
        shadow = shadows[0]
        return Shadow(shadow.layers, kind) if shadow.source and kind is Kind.ACTIVATION else shadow
    operands = [operand(tape, tensor, ndim) for tensor in tensors]
    layers = merge(tape, operands)
    if kind is not Kind.ACTIVATION:
        whole = [s.source for s, t in zip(shadows, tensors, strict=True) if s.source and t.shape == torch.Size(shape)]
        return Shadow(layers, kind, whole[0] if whole else None)
    if layers:
        _open_parameters(tape, operands, layers)
    return Shadow([*layers, *_spanned_by_constants(operands, layers, shape)], kind)


def _spanned_by_constants(operands: Sequence[Operand], layers: Sequence[Labels], shape: Sequence[int]) -> list[Labels]:
    """Flexible layers for axes that only constants span (a state of zeros times a mask of ended episodes)."""
    rest = [item for item in operands if item.kind is not Kind.CONSTANT]
    return [
        flexible(size, axis, len(shape))
        for axis, size in enumerate(shape)
        if size > 1
        and all(item.sizes[axis] == 1 for item in rest)
        and all(layer.shape[axis] == 1 for layer in layers)
        and all(axis not in item.uneven for item in operands)
    ]


def _open_parameters(tape: Tape, operands: Sequence[Operand], layers: Sequence[Labels]) -> None:
    """Open the last axes of parameters that are broadcast against an activation (Fourier features)."""
    for item in operands:
        for layer in item.layers if item.kind is Kind.PARAMETER else ():
            if any(layer is other for other in layers) and varying(layer)[-1] == len(item.sizes) - 1:
                tape.open(layer)


def protect_all(tape: Tape, call: Call) -> Shadow:
    """The default rule: it protects the channels of the inputs, and the output is fixed."""
    for tensor in call.tensors():
        shadow = tape.of(tensor)
        tape.protect(shadow, f"{call.op} has no rule")
        if shadow.kind is Kind.PARAMETER and tensor.ndim > 1:  # no layer will open a weight's rows behind it
            for layer in shadow.layers:
                if varying(layer) == (0,):
                    tape.open(layer)
    return EMPTY


def merge(tape: Tape, operands: Sequence[Operand]) -> list[Labels]:
    """The layers of an element-wise result with broadcasting: layers that overlap are united.

    A layer cannot shrink along an axis that is fixed in another operand. It is tied along such axes, and protected if
    it varies over no others. In an outer product of heads, all heads stay, with equal widths.
    """
    merged: list[Labels] = []
    for index, item in enumerate(operands):
        others = [*operands[:index], *operands[index + 1 :]]
        layers = [rest for layer in item.layers if (rest := _meet_fixed(tape, layer, others)) is not None]
        for other in merged:  # a view that joins axes may leave several layers over one axis
            layers = _drop_all_but_last(tape, layers, other)
        fresh = []
        for each in layers:
            layer, merged = _outer(tape, each, merged)
            merged = _drop_all_but_last(tape, merged, layer)
            meeting = next((place for place, other in enumerate(merged) if overlap(layer, other)), None)
            if meeting is None:
                fresh.append(layer)
            else:
                merged[meeting] = tape.unite(merged[meeting], layer)
        merged += fresh
    return merged


def _outer(tape: Tape, layer: Labels, merged: Sequence[Labels]) -> tuple[Labels, list[Labels]]:
    """A layer and those that it meets. Layers (heads, n, 1) and (heads, 1, m) of an outer product lose the heads.

    The heads are tied, unless the code places the channels on their axis (`Split.is_explicit`).
    """
    found = list(merged)
    for place, other in enumerate(merged):
        mine, theirs = set(varying(layer)), set(varying(other))
        shared = mine & theirs
        if shared and mine - shared and theirs - shared:
            kept = {tape.kept_axis(each, explicit_only=True) for each in (layer, other)}
            if kept.isdisjoint(shared):
                layer, found[place] = tape.collapse(layer, shared), tape.collapse(other, shared)
    return layer, found


def _meet_fixed(tape: Tape, layer: Labels, others: Sequence[Operand]) -> Labels | None:
    """A layer after it has met the fixed axes of other operands; None if it is protected."""
    for other in others:
        axes = varying(layer)
        if other.kind is Kind.CONSTANT:
            tied = [axis for axis in axes if axis in other.uneven]
            reason = f"{tape.op} with {UNEVEN}"
        elif any(candidate.shape[axis] > 1 for candidate in other.layers for axis in axes):
            continue
        else:
            tied = [axis for axis in axes if other.sizes[axis] > 1]
            reason = f"{tape.op} with a tensor of fixed size"
        if len(tied) == len(axes):
            tape.protect(layer, reason)
            return None
        layer = tape.collapse(layer, tied)
    return layer


def _drop_all_but_last(tape: Tape, layers: list[Labels], other: Labels) -> list[Labels]:
    """Keep the last of several layers that overlap another one: it holds the channels. Protect the others."""
    overlapping = [layer for layer in layers if overlap(layer, other)]
    if len(overlapping) < 2:
        return layers
    kept = max(overlapping, key=lambda layer: varying(layer)[-1])
    dropped = [layer for layer in overlapping if layer is not kept]
    for layer in dropped:
        tape.protect(layer, f"{tape.op}: another axis holds the channels")
    return [layer for layer in layers if not any(layer is each for each in dropped)]
