"""Writes into a part of a tensor: what the whole learns of the channels that are put there.

Code makes a tensor of zeros and fills it piece by piece (torch's circular padding does). The tensor behind the piece
has a shadow of its own.
"""

from __future__ import annotations

from torch import Tensor

from gsprune.tracing.marks import ensure_mark
from gsprune.tracing.shadow import EMPTY, FLEXIBLE, Kind, Shadow, varying
from gsprune.tracing.tape import Tape, shared_layers

__all__ = ["note_write"]


def note_write(tape: Tape, written: Tensor, result: Shadow, op: str) -> None:
    """An operation has written `result` into `written`, which may be a view of a larger tensor.

    The shadow of `written` is still that from before the write. The larger tensor takes over channels that span one of
    its axes; others keep their width.
    """
    base = written._base
    if base is None:
        ensure_mark(written).writes += 1
        return
    old, known = tape.of(written), tape.of(base)
    ensure_mark(base).writes += 1
    if len(old.layers) == len(result.layers) and old.kind is not Kind.CONSTANT:
        return  # the channels have been united with what was there
    if known.kind is Kind.CONSTANT and _of_any_size(written, result):
        tape.mark(base, known)
        return
    kind = max(known.kind, result.kind)
    whole = shared_layers(written, base, result.layers)
    if whole is None:
        for shadow in (result, known):
            tape.protect(shadow, f"{op} into a part of a tensor")
        tape.mark(base, EMPTY)
        return
    layers = {varying(layer): layer for layer in known.layers}
    for layer in whole:
        same = layers.get(varying(layer))
        if same is not None:
            layers[varying(layer)] = tape.unite(same, layer)
        elif known.kind is Kind.CONSTANT:
            layers[varying(layer)] = layer
        else:
            tape.protect(layer, f"{op} with a tensor of fixed size")
    tape.mark(base, Shadow(list(layers.values()), kind))


def _of_any_size(written: Tensor, result: Shadow) -> bool:
    """Whether what was written follows whatever size it meets: constants, and numbers spread over a constant."""
    flexible = {axis for layer in result.layers if layer.max() == FLEXIBLE for axis in varying(layer)}
    return result.kind is Kind.CONSTANT or flexible == {axis for axis, size in enumerate(written.shape) if size > 1}
