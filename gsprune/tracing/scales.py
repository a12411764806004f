"""Numbers in a forward: are they computed from a width, or written down?

The operations show a number, not where it comes from. It counts as written if a module whose method is running keeps it
(``self.scale``), or if it stands in that method's code. A scale 1 / sqrt(d) that is computed would grow as d shrinks,
which rows of the projection make up for (`gsprune.tracing.graph.Queries`). Channels are kept where the sizes of a split
stand in the code.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator, Sequence
from types import FrameType
from typing import Any

import numpy as np
import torch
from torch import nn

from gsprune.tracing.passages import Scale
from gsprune.tracing.rules_common import Call
from gsprune.tracing.shadow import Dot, Kind, Labels, Shadow
from gsprune.tracing.tape import Tape

__all__ = ["are_written_sizes", "dot_of", "keep_scale", "keep_widths_of_busy_queries", "note_factor", "number_of"]

_FACTORS = {"aten.mul": 1.0, "aten.div": -1.0}  # operation -> exponent of its second argument


def dot_of(query: Shadow, key: Shadow, axis: int) -> Dot | None:
    """What a product of two activations must remember: the rows behind its first operand, if its width is labelled."""
    if query.kind is not Kind.ACTIVATION or key.kind is not Kind.ACTIVATION:
        return None
    layers = [layer for layer in query.layers if layer.shape[axis] > 1]
    if not layers:
        return None
    shared = any(np.isin(layers[0], other).any() for other in key.layers)
    return Dot(layers[0], layers[0].shape[axis], query.source is not None and not shared)


def keep_scale(tape: Tape, query: Shadow, key: Shadow, op: str, scale: float | None) -> None:
    """Attention that scales by 1 / sqrt(width) itself, or is given it as a number: note the queries' rows.

    Where they cannot make up for another scale, the width is kept.
    """
    dot = dot_of(query, key, -1)
    if dot is not None and (scale is None or (_is_root(scale, dot.width) and not _is_written(scale))):
        _note(tape, dot.query, dot.known, op)
        if scale is not None and dot.known:
            tape.scale = Scale(scale, 1.0, dot.query)


def keep_widths_of_busy_queries(tape: Tape) -> None:
    """Rows whose products go elsewhere, too (to relative positions, a residual sum), cannot make up for a scale.

    What was multiplied by the scale itself may go anywhere after that.
    """
    scaled = {id(layer) for layer in tape.queries}
    elsewhere = np.zeros(tape.num_atoms, bool)
    for layer in tape.ends:
        if id(layer) not in scaled:
            elsewhere[np.maximum(layer, 0)] = True
    elsewhere[0] = False
    busy = [layer for layer in tape.queries if elsewhere[np.maximum(layer, 0)].any()]
    tape.queries = [layer for layer in tape.queries if not any(layer is other for other in busy)]
    for layer in busy:
        tape.protect(layer, "attention computes its scale from the width, and its queries are used elsewhere")


def _note(tape: Tape, labels: Labels, known: bool, op: str) -> None:
    """Rows make up for a scale where they are known: the operand is a product of a weight and nothing else."""
    if known:
        tape.queries.append(labels)
    else:
        tape.protect(labels, f"{op} computes its scale from the width")


def note_factor(tape: Tape, call: Call) -> bool:
    """Look at a multiplication or division by one number; True where that makes queries of a weight's product."""
    exponent = _FACTORS.get(call.op)
    if exponent is None or len(call.args) < 2 or not isinstance(call.args[0], torch.Tensor):
        return False
    if isinstance(call.args[1], torch.Tensor) and tape.name_of(call.args[1]) is not None:
        return False  # kept by a module
    shadow, value = tape.of(call.args[0]), number_of(call.args[1])
    if value is None or value <= 0 or not (shadow.dot or shadow.source):
        return False
    factor = value**exponent
    if shadow.dot is not None:
        if _is_root(factor, shadow.dot.width) and not _is_written(value):
            _note(tape, shadow.dot.query, shadow.dot.known, call.op)
            if shadow.dot.known:
                tape.scale = Scale(value, exponent, shadow.dot.query)
        return False
    noted = len(tape.queries)
    for layer in shadow.layers:
        is_used = any(layer is end for end in tape.ends)  # what was made of it before would be scaled, too
        if is_used or shadow.kind is not Kind.ACTIVATION:
            continue
        if _is_root(factor, layer.shape[-1]) and not _is_written(value):
            tape.queries.append(layer)
            tape.scale = Scale(value, exponent, layer)
    return len(tape.queries) > noted


def number_of(value: Any) -> float | None:
    """A Python number, or a tensor of one."""
    if isinstance(value, torch.Tensor):
        return float(value) if value.numel() == 1 and not value.is_complex() and not value.is_meta else None
    return float(value) if isinstance(value, int | float) else None


def _is_root(factor: float, width: int) -> bool:
    """Whether a factor is 1 / sqrt(width)."""
    return width > 1 and math.isclose(factor * math.sqrt(width), 1.0, rel_tol=1e-5)


def _is_written(value: float) -> bool:
    """Whether the number is kept by a module whose method is running, or stands in that method's code.

    Integers are passed over: 8 may be a number of heads as well as the root of 64.
    """
    for owner, frame in _running_modules():
        kept = [item for item in (*vars(owner).values(), *frame.f_code.co_consts) if isinstance(item, float)]
        if any(math.isclose(item, value, rel_tol=1e-6) for item in kept):
            return True
    return False


def are_written_sizes(sizes: Sequence[int]) -> bool:
    """True if all sizes of a split are constants in the code of a running method.

    Sizes that a module stores are another matter: they can follow the channels (`gsprune.rewrite.repair`).
    """
    for _, frame in _running_modules():
        constants = frame.f_code.co_consts
        if tuple(sizes) in constants or set(sizes) <= {item for item in constants if isinstance(item, int)}:
            return True
    return False


def _running_modules() -> Iterator[tuple[nn.Module, FrameType]]:
    """Modules whose methods are on the stack, innermost first."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        owner = frame.f_locals.get("self")
        if isinstance(owner, nn.Module):
            yield owner, frame
        frame = frame.f_back
