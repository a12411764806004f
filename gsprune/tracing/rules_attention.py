"""Rules of fused attention: softmax(q k^T * scale + mask) v."""

from __future__ import annotations

import torch

from gsprune.tracing.rules_common import Call, Rule, origin
from gsprune.tracing.rules_layers import contract, note_products
from gsprune.tracing.scales import keep_scale
from gsprune.tracing.shadow import Labels, Shadow, varying
from gsprune.tracing.tape import Operand, Tape

__all__ = ["RULES"]


def _attention(tape: Tape, call: Call) -> list[Shadow]:
    """Queries (..., L, e), keys (..., S, e), values (..., S, v); heads are batch axes and stay equal."""
    query, key, value = call.args[:3]
    scale = call.kwargs.get("scale")
    ndim = query.ndim
    shadows = [tape.of(tensor) for tensor in (query, key, value)]
    for shadow in shadows:
        for layer in shadow.layers:
            if len(varying(layer)) > 1 and layer.shape[-1] > 1:
                tape.heads.append(layer)
    widths = [_widths(tape, shadow.layers, ndim - 1, f"{call.op}: positions of a head") for shadow in shadows]
    keep_scale(tape, shadows[0], shadows[1], call.op, scale)
    if query.shape[-1] > 1:
        vectors = [width[0].reshape(-1) if width else None for width in widths[:2]]
        contract(tape, vectors[0], shadows[0].kind, vectors[1], shadows[1].kind)
        note_products(tape, shadows[0], shadows[1], widths[0])
    layers = _carried(tape, call, (query, key, value), widths[2])
    return [Shadow(layers, origin(shadows))]


def _widths(tape: Tape, layers: tuple[Labels, ...], axis: int, reason: str) -> list[Labels]:
    """The layer over a head's width, tied across heads."""
    found = [tape.collapse(layer, range(axis)) for layer in layers if layer.shape[axis] > 1]
    for other in found[1:]:
        tape.protect(other, reason)
    return found[:1]


def _carried(tape: Tape, call: Call, tensors: tuple[torch.Tensor, ...], widths: list[Labels]) -> list[Labels]:
    """Layers of the output: the values' width, and batch axes that all three share."""
    ndim = tensors[0].ndim
    batch = []
    for tensor in tensors:
        rest = []
        for layer in tape.of(tensor).layers:
            if layer.shape[-1] > 1:
                continue
            if layer.shape[-2] > 1:
                tape.protect(layer, f"{call.op} mixes positions")
            else:
                rest.append(layer)
        batch.append(Operand(tuple(rest), (*tensor.shape[:-2], 1, 1), tape.of(tensor).kind))
    return [layer for layer in (*tape.merge(batch), *widths) if layer.ndim == ndim]


def _table(rule: Rule, *names: str) -> dict[str, Rule]:
    return {f"aten.{name}": rule for name in names}


RULES: dict[str, Rule] = _table(
    _attention,
    "scaled_dot_product_attention",
    "_scaled_dot_product_flash_attention_for_cpu",
    "_scaled_dot_product_flash_attention",
    "_scaled_dot_product_efficient_attention",
    "_scaled_dot_product_cudnn_attention",
    "_scaled_dot_product_fused_attention_overrideable",
    "_scaled_dot_product_attention_math",
    "_scaled_dot_product_attention_math_for_mps",
)
