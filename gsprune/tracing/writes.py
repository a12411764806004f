"""Writes into a view of a tensor: the base takes over the channels.

Some code makes a tensor of zeros and fills it piece by piece, such as torch's circular padding. View and base have
separate shadows.
"""

from __future__ import annotations

from torch import Tensor

from gsprune.tracing.marks import ensure_mark
from gsprune.tracing.shadow import EMPTY, FLEXIBLE, Kind, Shadow, varying
from gsprune.tracing.tape import Tape, shared_layers

__all__ = ["note_write"]


def note_write(tape: Tape, written: Tensor, result: Shadow, op: str) -> None:
    """Update the base of `written` after an operation has written `result` into it.

    The tape still has the shadow of `written` from before the write. The base takes over channels that span one of its
    axes; others are protected.
    """
    base = written._base
    if base is None:
        ensure_mark(written).writes += 1
        return
    old, whole = tape.of(written), tape.of(base)
    ensure_mark(base).writes += 1
    if len(old.layers) == len(result.layers) and old.kind is not Kind.CONSTANT:
        return  # the rule has united old and new channels
    if whole.kind is Kind.CONSTANT and _is_flexible(written, result):
        tape.mark(base, whole)
        return
    added = shared_layers(written, base, result.layers)
    if added is None:
        for shadow in (result, whole):
            tape.protect(shadow, f"{op} into a part of a tensor")
        tape.mark(base, EMPTY)
        return
    layers = {varying(layer): layer for layer in whole.layers}
    for layer in added:
        same = layers.get(varying(layer))
        if same is not None:
            layers[varying(layer)] = tape.unite(same, layer)
        elif whole.kind is Kind.CONSTANT:
            layers[varying(layer)] = layer
        else:
            tape.protect(layer, f"{op} with a tensor of fixed size")
    tape.mark(base, Shadow(list(layers.values()), max(whole.kind, result.kind)))


def _is_flexible(written: Tensor, result: Shadow) -> bool:
    """True if the written values may have any size: constants, and values that are broadcast over a constant."""
    flexible = {axis for layer in result.layers if layer.max() == FLEXIBLE for axis in varying(layer)}
    return result.kind is Kind.CONSTANT or flexible == {axis for axis, size in enumerate(written.shape) if size > 1}
