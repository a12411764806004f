"""Rules of fused attention: softmax(q k^T * scale + mask) v."""

from __future__ import annotations

import torch

from gsprune.tracing.call import Call
from gsprune.tracing.rules.operands import Operand, highest_kind, merge
from gsprune.tracing.rules.products import contract, note_products
from gsprune.tracing.rules.registry import aten
from gsprune.tracing.scales import note_attention
from gsprune.tracing.shadow import Labels, Shadow, varying
from gsprune.tracing.tape import Tape


@aten(
    "scaled_dot_product_attention _scaled_dot_product_flash_attention_for_cpu _scaled_dot_product_flash_attention "
    "_scaled_dot_product_efficient_attention _scaled_dot_product_cudnn_attention _scaled_dot_product_attention_math "
    "_scaled_dot_product_fused_attention_overrideable _scaled_dot_product_attention_math_for_mps"
)
def _attention(tape: Tape, call: Call) -> list[Shadow]:
    """Queries (..., L, e), keys (..., S, e), values (..., S, v); heads are batch axes and stay equal."""
    tensors = call.args[:3]
    query, key, value = (tape.of(tensor) for tensor in tensors)
    for shadow in (query, key, value):
        tape.heads += [layer for layer in shadow.layers if len(varying(layer)) > 1 and layer.shape[-1] > 1]
    widths = [_width(tape, shadow, f"{call.op}: positions of a head") for shadow in (query, key, value)]
    tape.scale = note_attention(tape, query, key, call.op, call.kwargs.get("scale"))
    if tensors[0].shape[-1] > 1:
        query_width, key_width = (None if width is None else width.reshape(-1) for width in widths[:2])
        contract(tape, query_width, query.kind, key_width, key.kind)
        note_products(tape, query, key, [] if widths[0] is None else [widths[0]])
    layers = merge(tape, [_batch(tape, call, tensor) for tensor in tensors])
    layers += [] if widths[2] is None else [widths[2]]
    return [Shadow(layers, highest_kind([query, key, value]))]


def _width(tape: Tape, shadow: Shadow, reason: str) -> Labels | None:
    """The layer over a head's width, tied across heads."""
    found = [tape.collapse(layer, range(layer.ndim - 1)) for layer in shadow.layers if layer.shape[-1] > 1]
    for other in found[1:]:
        tape.protect(other, reason)
    return found[0] if found else None


def _batch(tape: Tape, call: Call, tensor: torch.Tensor) -> Operand:
    """The batch axes of a tensor, which meet those of the others; positions are protected."""
    shadow = tape.of(tensor)
    rest = shadow.with_layers([layer for layer in shadow.layers if layer.shape[-1] == 1])
    rest = tape.protect_along(rest, [-2], f"{call.op} mixes positions")
    return Operand(rest.layers, (*tensor.shape[:-2], 1, 1), shadow.kind)
