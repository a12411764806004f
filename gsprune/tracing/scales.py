"""Scales of attention: a scale 1 / sqrt(d) that the forward computes would grow as the width d shrinks.

A step multiplies the rows of the queries' projection to compensate for that (`gsprune.tracing.graph.Queries`). Whether
these rows have the effect of the scale, `gsprune.rewrite.scale_check` finds out before the first cut. A number that is
written in the code does not change. An operation shows only the number, so `gsprune.tracing.constants` looks for it in
the code.
"""

from __future__ import annotations

import math

import numpy as np
import torch

from gsprune.tracing.call import Call
from gsprune.tracing.constants import is_written, number_of
from gsprune.tracing.shadow import Dot, Kind, Shadow
from gsprune.tracing.tape import Tape
from gsprune.tracing.trail import Scale

__all__ = ["dot_behind", "dot_of", "note_attention", "note_factor"]

_FACTORS = {"aten.mul": 1.0, "aten.div": -1.0}  # operation -> exponent of its second argument


def dot_of(query: Shadow, key: Shadow, axis: int) -> Dot | None:
    """The `Dot` of a product of queries, also learned ones, and keys; None if queries have no channels along `axis`."""
    layers = [layer for layer in query.layers if layer.shape[axis] > 1]
    if not layers or key.kind is not Kind.ACTIVATION or (query.kind is not Kind.ACTIVATION and query.source is None):
        return None
    shared = any(np.isin(layers[0], other).any() for other in key.layers)
    return Dot(layers[0], layers[0].shape[axis], query.source is not None and not shared)


def dot_behind(tape: Tape, call: Call) -> Dot | None:
    """The `Dot` after a pointwise operation, a mask or a factor between the product and its scale: that of an input."""
    return next((dot for dot in (tape.of(tensor).dot for tensor in call.tensors()) if dot is not None), None)


def note_attention(tape: Tape, query: Shadow, key: Shadow, op: str, scale: float | None) -> Scale | None:
    """Note the queries' rows of an attention that scales by 1 / sqrt(width).

    Returns:
        the scale and how it depends on the width; None if there is no width.
    """
    layers = [layer for layer in query.layers if layer.shape[-1] > 1]
    if not layers:
        return None
    dot = dot_of(query, key, -1) or Dot(layers[0], layers[0].shape[-1], is_product=False)
    if scale is None or _is_computed(scale, 1.0, dot.width):
        if not tape.inside_attention:  # noted before
            _note_queries(tape, dot, op)
        return Scale(dot.width**-0.5 if scale is None else scale, float(dot.is_product), "scale", dot.query)
    return Scale(scale, 0.0, "scale", dot.query)


def note_factor(tape: Tape, call: Call) -> bool:
    """Note a multiplication or division by a computed scale; True if it turns a weight's product into queries."""
    exponent = _FACTORS.get(call.op)
    if exponent is None or len(call.args) < 2 or not isinstance(call.args[0], torch.Tensor):
        return False
    if isinstance(call.args[1], torch.Tensor) and tape.name_of(call.args[1]) is not None:
        return False  # stored in a module
    shadow, value = tape.of(call.args[0]), number_of(call.args[1])
    if tape.inside_attention:  # torch multiplies queries and keys by the square root
        whole = tape.attention_scale
        if whole is not None and value is not None:
            tape.scale = Scale(value, whole.exponent / 2, 1, whole.labels)
        return False
    if value is None or value <= 0 or not (shadow.dot or shadow.source):
        return False
    dot = shadow.dot
    if dot is not None:
        if _is_computed(value, exponent, dot.width):
            _note_queries(tape, dot, call.op)
            tape.scale = Scale(value, exponent * dot.is_product, 1, dot.query)
        return False
    noted = len(tape.queries)
    for layer in shadow.layers:
        if _is_computed(value, exponent, layer.shape[-1]):
            tape.queries.append(layer)
            tape.scale = Scale(value, exponent, 1, layer)
    return len(tape.queries) > noted


def _note_queries(tape: Tape, dot: Dot, op: str) -> None:
    """Note the rows of the queries; protect the width if the queries are no product of a weight."""
    if dot.is_product:
        tape.queries.append(dot.query)
    else:
        tape.protect(dot.query, f"{op} computes its scale from the width")


def _is_computed(value: float, exponent: float, width: int) -> bool:
    """True if the factor ``value**exponent`` is 1 / sqrt(width), and is not written in the code."""
    root = value**exponent * math.sqrt(width)
    return width > 1 and math.isclose(root, 1.0, rel_tol=1e-5) and not is_written(value)
