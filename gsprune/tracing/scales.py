"""Scales of attention: a scale 1 / sqrt(d) that the forward computes would grow as the width d shrinks.

A step multiplies the rows of the queries' projection to compensate for that (`gsprune.tracing.graph.Queries`). A number
that is written in the code does not change. An operation shows only the number, so `gsprune.tracing.constants` looks
for it in the code.
"""

from __future__ import annotations

import math
from collections import Counter

import numpy as np
import torch
from torch import nn

from gsprune.tracing.call import Call
from gsprune.tracing.constants import is_inside, is_written, number_of
from gsprune.tracing.shadow import Dot, Kind, Shadow
from gsprune.tracing.tape import Tape
from gsprune.tracing.trail import Scale

__all__ = ["dot_of", "masked_dot", "note_attention", "note_factor", "protect_reused_queries"]

_FACTORS = {"aten.mul": 1.0, "aten.div": -1.0}  # operation -> exponent of its second argument
# Operations between a product and its scale -> True if scaled rows still have the effect of a scale. An added term
# prevents this, because the scale multiplies it, too.
_MASKS = {"aten.masked_fill": True, "aten.where": True, "aten.add": False, "aten.sub": False}


def dot_of(query: Shadow, key: Shadow, axis: int) -> Dot | None:
    """The `Dot` of a product of two activations; None if the first has no channels along `axis`."""
    layers = [layer for layer in query.layers if layer.shape[axis] > 1]
    if not layers or query.kind is not Kind.ACTIVATION or key.kind is not Kind.ACTIVATION:
        return None
    shared = any(np.isin(layers[0], other).any() for other in key.layers)
    return Dot(layers[0], layers[0].shape[axis], query.source is not None and not shared)


def masked_dot(tape: Tape, call: Call) -> Dot | None:
    """The `Dot` after an operation that masks a product of activations, or adds a term to it."""
    found = [dot for dot in (tape.of(tensor).dot for tensor in call.tensors()) if dot is not None]
    if len(found) != 1 or call.op not in _MASKS:
        return None
    return found[0]._replace(is_product=found[0].is_product and _MASKS[call.op])


def note_attention(tape: Tape, query: Shadow, key: Shadow, op: str, scale: float | None) -> Scale | None:
    """Note the queries' rows of an attention that scales by 1 / sqrt(width).

    Returns:
        the scale and how it depends on the width; None if there is no width.
    """
    layers = [layer for layer in query.layers if layer.shape[-1] > 1]
    if not layers:
        return None
    dot = dot_of(query, key, -1) or Dot(layers[0], layers[0].shape[-1], _projects_learned_queries())
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
    is_product = shadow.kind is Kind.ACTIVATION or _projects_learned_queries()
    for layer in shadow.layers if is_product else ():
        is_used = any(layer is used for used in tape.used_products)  # scaled rows would also scale earlier results
        if not is_used and _is_computed(value, exponent, layer.shape[-1]):
            tape.queries.append(layer)
            tape.scale = Scale(value, exponent, 1, layer)
    return len(tape.queries) > noted


def _note_queries(tape: Tape, dot: Dot, op: str) -> None:
    """Note the rows of the queries; protect the width if the queries are no product of a weight."""
    if dot.is_product:
        tape.queries.append(dot.query)
    else:
        tape.protect(dot.query, f"{op} computes its scale from the width")


def _projects_learned_queries() -> bool:
    """True inside a module that scales no parameters but the products of learned queries with its own weight."""
    return is_inside(nn.MultiheadAttention)


def _is_computed(value: float, exponent: float, width: int) -> bool:
    """True if the factor ``value**exponent`` is 1 / sqrt(width), and is not written in the code."""
    root = value**exponent * math.sqrt(width)
    return width > 1 and math.isclose(root, 1.0, rel_tol=1e-5) and not is_written(value)


def protect_reused_queries(tape: Tape) -> None:
    """Protect rows of queries whose unscaled products have other uses (a residual sum), which scaling would change."""
    scaled_uses = Counter(id(layer) for layer in tape.queries)
    elsewhere = np.zeros(tape.num_atoms, bool)
    for layer in tape.used_products:
        if scaled_uses[id(layer)]:
            scaled_uses[id(layer)] -= 1
        else:
            elsewhere[np.maximum(layer, 0)] = True
    elsewhere[0] = False
    busy = [layer for layer in tape.queries if elsewhere[np.maximum(layer, 0)].any()]
    tape.queries = [layer for layer in tape.queries if not any(layer is other for other in busy)]
    for index, operation in enumerate(tape.trail):
        scale = operation.scale
        if scale is not None and any(scale.labels is layer for layer in busy):
            tape.trail[index] = operation._replace(scale=scale._replace(exponent=0.0))
    for layer in busy:
        tape.protect(layer, "attention computes its scale from the width, and its queries are used elsewhere")
