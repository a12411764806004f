"""Rules of the layers with weights: convolutions and products of matrices."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from gsprune.tracing.constants import UNEVEN, uneven_axes
from gsprune.tracing.rules_common import Call, Rule, channels_out, operand, origin
from gsprune.tracing.scales import dot_of
from gsprune.tracing.shadow import Kind, Labels, Shadow, varying
from gsprune.tracing.tape import Operand, Tape

__all__ = ["RULES", "contract", "note_products", "product"]


def _along(tape: Tape, layers: Sequence[Labels], axis: int, *, told: bool = True) -> tuple[list[Labels], list[Labels]]:
    """Layers that vary over `axis` as vectors, tied along their other axes, and the layers that do not.

    One whose channels go along another axis, as the code says, is tied along this one if `told`.
    """
    vectors, rest = [], []
    for layer in layers:
        if layer.shape[axis] == 1:
            rest.append(layer)
        elif told and len(varying(layer)) > 1 and tape.kept_axis(layer, told=True) not in (None, axis):
            rest.append(tape.collapse(layer, [axis]))
        else:
            vectors.append(tape.vector(layer, axis))
    return vectors, rest


def _first(tape: Tape, vectors: Sequence[Labels]) -> Labels | None:
    """The vector that holds the channels; others (kernel axes merged into the same axis) are protected."""
    for other in vectors[1:]:
        tape.protect(other, f"{tape.op}: another axis holds the channels")
    return vectors[0] if vectors else None


def contract(tape: Tape, a: Labels | None, a_kind: Kind, b: Labels | None, b_kind: Kind) -> None:
    """Sum over an axis that both operands have: their atoms are the same channels; a fixed side protects the other.

    The weight's axis (kind PARAMETER) consumes channels.
    """
    if a is not None and b is not None:
        tape.unite(a, b)
        tape.contracted.append(a)
        if b_kind is Kind.PARAMETER:
            tape.inputs.append(b)
            if a_kind is Kind.PARAMETER:
                tape.open(a)  # learned queries, a learned initial state
    elif a is not None and b_kind is not Kind.CONSTANT:
        tape.protect(a, f"{tape.op} with a tensor of fixed size")
    elif b is not None and a_kind is not Kind.CONSTANT:
        tape.protect(b, f"{tape.op} with a tensor of fixed size")
        if b_kind is Kind.PARAMETER:
            tape.inputs.append(b)


def note_products(tape: Tape, first: Shadow, second: Shadow, layers: Sequence[Labels]) -> None:
    """A sum of products of two activations is exact where one of them is zero in a removed channel."""
    if first.kind is second.kind is Kind.ACTIVATION and first.source is None and second.source is None:
        tape.population(layers)


def convolution(tape: Tape, call: Call) -> Shadow:
    """aten.convolution(input, weight, bias, stride, padding, dilation, transposed, output_padding, groups)."""
    x, weight, bias = call.args[:3]
    transposed, groups = call.args[6], call.args[8]
    shadow, kernel = tape.of(x), tape.of(weight)
    rest = _spatial(tape, shadow.layers, call.op)
    vectors, carried = _along(tape, rest, 1)
    channels = _first(tape, vectors)
    axes = [
        _first(tape, _along(tape, [layer for layer in kernel.layers if varying(layer) == (axis,)], axis)[0])
        for axis in (0, 1)
    ]
    for layer in kernel.layers:
        over = varying(layer)
        if len(over) > 1:
            tape.protect(layer, f"{call.op} with a weight of joint axes")
        elif over[0] >= 2:
            tape.protect(layer, "positions of a kernel")
    consumed, opened = (axes[0], axes[1]) if transposed else (axes[1], axes[0])
    outputs = _grouped(
        tape, channels, shadow.kind, consumed, opened, kernel.kind, x.shape[1], call.out.shape[1], groups, transposed
    )
    layers = list(carried)
    if outputs is not None:
        layers.append(channels_out(outputs, 1, x.ndim))
    if bias is not None:
        row = Operand(
            tuple(channels_out(layer, 1, x.ndim) for layer in tape.of(bias).layers),
            _row(bias, x.ndim),
            tape.of(bias).kind,
        )
        layers = tape.merge([Operand(tuple(layers), tuple(call.out.shape), Kind.ACTIVATION), row])
    _count(tape, weight, (x if transposed else call.out).numel() / (x if transposed else call.out).shape[1])
    return Shadow(layers)


def _spatial(tape: Tape, layers: Sequence[Labels], op: str) -> list[Labels]:
    """Layers under an operation that mixes positions (axes 2 and on): tied over space; positions are protected."""
    kept = []
    for layer in layers:
        if all(axis >= 2 for axis in varying(layer)):
            tape.protect(layer, f"{op} mixes positions")
        else:
            kept.append(tape.collapse(layer, range(2, layer.ndim)))
    return kept


def _row(bias: torch.Tensor, ndim: int) -> tuple[int, ...]:
    return tuple(bias.numel() if axis == 1 else 1 for axis in range(ndim))


def _grouped(
    tape: Tape,
    channels: Labels | None,
    kind: Kind,
    consumed: Labels | None,
    opened: Labels | None,
    kernel_kind: Kind,
    in_channels: int,
    out_channels: int,
    groups: int,
    transposed: bool,
) -> Labels | None:
    """Unite inputs with the weight's input axis, group by group; labels of the outputs."""
    if groups == 1:
        if in_channels > 1:
            contract(tape, channels, kind, consumed, kernel_kind)
        if opened is not None and kernel_kind is Kind.PARAMETER:
            tape.open(opened)
        return opened
    if in_channels == groups:
        return _depthwise(
            tape, channels, kind, consumed if transposed else opened, out_channels // groups, opened, transposed
        )
    if channels is not None:
        channels = tape.collapse(channels.reshape(groups, -1), [0]).reshape(-1)
    if transposed:
        if consumed is not None:
            consumed = tape.collapse(consumed.reshape(groups, -1), [0]).reshape(-1)
        outputs = None if opened is None else np.tile(opened, groups)
    else:
        outputs = (
            None if opened is None else np.tile(tape.collapse(opened.reshape(groups, -1), [0]).reshape(-1), groups)
        )
    if in_channels // groups > 1:
        contract(tape, channels, kind, consumed, kernel_kind)
    if opened is not None and kernel_kind is Kind.PARAMETER:
        tape.open(opened)
    return outputs


def _depthwise(
    tape: Tape,
    channels: Labels | None,
    kind: Kind,
    own: Labels | None,
    multiplier: int,
    opened: Labels | None,
    transposed: bool,
) -> Labels | None:
    """Output channels k * multiplier ... belong to input channel k."""
    if own is None:
        if channels is not None:
            tape.protect(channels, f"{tape.op} with a tensor of fixed size")
        return None
    by_input = own if transposed else own.reshape(-1, multiplier)
    if channels is not None:
        tape.unite(channels if transposed else channels.reshape(-1, 1), by_input)
    elif kind is not Kind.CONSTANT:
        tape.protect(own, f"{tape.op} on channels of fixed number")
    if not transposed:
        return own
    if opened is not None:
        tape.protect(opened, f"{tape.op} with a channel multiplier")
    return np.repeat(own, multiplier)


def _count(tape: Tape, weight: torch.Tensor, positions: float) -> None:
    """Note a use of a weight for the MACs."""
    source = tape.of(weight).source
    if source is not None:
        tape.count(source, positions)


def product(tape: Tape, a: torch.Tensor, b: torch.Tensor, out_shape: Sequence[int], transposed: bool = False) -> Shadow:
    """The shadow of a @ b: (..., n, k) @ (..., k, m), or of a @ b^T with b (..., m, k).

    The contracted axis unites, tied over batch and rows; rows of `a` and columns of `b` carry on, and a parameter's
    columns (its rows, where the parameter stands on the left) are opened. Batch axes meet as in an element-wise
    operation: heads stay equal.
    """
    first, second = tape.of(a), tape.of(b)
    second_layers = [np.swapaxes(layer, -1, -2) for layer in second.layers] if transposed else list(second.layers)
    depth = a.shape[-1]
    told = Kind.PARAMETER in (first.kind, second.kind)  # heads of queries and keys stay, whatever a view leaves open
    mine, rows = _along(tape, first.layers, a.ndim - 1, told=told)
    theirs, columns = _along(tape, second_layers, b.ndim - 2, told=told)
    _mark_heads(tape, [*first.layers, *second_layers])
    if depth > 1:
        protect_from_uneven(tape, a, -1, theirs)
        protect_from_uneven(tape, b, -1 if transposed else -2, mine)
        contract_either(tape, _first(tape, mine), first.kind, _first(tape, theirs), second.kind)
        note_products(tape, first, second, mine)
    width = out_shape[-1]
    left = Operand(_equal_heads(tape, rows), (*a.shape[:-1], 1), first.kind)
    right = Operand(_equal_heads(tape, columns), (*b.shape[:-2], 1, width), second.kind)
    for one, other in ((left, right), (right, left)):
        if one.kind is Kind.PARAMETER and other.kind is not Kind.PARAMETER:
            for layer in one.layers:
                if varying(layer)[-1] >= layer.ndim - 2:
                    tape.open(layer)
    kind = origin([first, second])
    if right.kind is Kind.PARAMETER and second.source is not None and kind is Kind.ACTIVATION:
        tape.count(second.source, _positions(a, b))
    elif left.kind is Kind.PARAMETER and first.source is not None and kind is Kind.ACTIVATION:
        tape.count(first.source, float(width))
    weight = next((shadow.source for shadow in (second, first) if shadow.kind is Kind.PARAMETER), None)
    return Shadow(tape.merge([left, right]), kind, weight, dot_of(first, second, a.ndim - 1))


def _positions(a: torch.Tensor, b: torch.Tensor) -> float:
    """How often each element of the right-hand matrix is used."""
    batch = float(np.prod(a.shape[:-2], dtype=np.float64))
    shared = float(np.prod(b.shape[:-2], dtype=np.float64))
    return batch * a.shape[-2] / max(shared, 1.0)


def protect_from_uneven(tape: Tape, constant: torch.Tensor, axis: int, channels: Sequence[Labels]) -> None:
    """Protect channels whose sum is weighted by a constant that goes by their positions (``arange``, ``eye``)."""
    if channels and axis % constant.ndim in uneven_axes(constant, tape.of(constant)):
        for layer in channels:
            tape.protect(layer, f"{tape.op} with {UNEVEN}")


def contract_either(tape: Tape, a: Labels | None, a_kind: Kind, b: Labels | None, b_kind: Kind) -> None:
    """`contract`, whichever side the weight stands on."""
    if a_kind is Kind.PARAMETER and b_kind is not Kind.PARAMETER:
        contract(tape, b, b_kind, a, a_kind)
    else:
        contract(tape, a, a_kind, b, b_kind)


def _mark_heads(tape: Tape, layers: Sequence[Labels]) -> None:
    """Labels that vary over a batch axis and another one are heads' (their widths are spoken of per head)."""
    for layer in layers:
        axes = varying(layer)
        if len(axes) > 1 and axes[0] < layer.ndim - 2:
            tape.heads.append(layer)


def _equal_heads(tape: Tape, layers: Sequence[Labels]) -> tuple[Labels, ...]:
    """Layers over heads and their widths, tied over the heads: these stay as many, and equal."""
    return tuple(
        tape.collapse(layer, range(layer.ndim - 2)) if varying(layer)[-1] >= layer.ndim - 2 else layer
        for layer in layers
    )


def _mm(tape: Tape, call: Call) -> Shadow:
    """mm(a, b), bmm(a, b), matmul of operands with two axes or more."""
    return product(tape, call.args[0], call.args[1], call.out.shape)


def _addmm(tape: Tape, call: Call) -> Shadow:
    """addmm(bias, a, b), baddbmm(bias, a, b)."""
    bias, a, b = call.args[:3]
    return _plus(tape, product(tape, a, b, call.out.shape), bias, call)


def _plus(tape: Tape, result: Shadow, bias: torch.Tensor | None, call: Call) -> Shadow:
    if bias is None:
        return result
    shape = tuple(call.out.shape)
    mine = operand(tape, bias, len(shape))
    layers = tape.merge([Operand(result.layers, shape, result.kind), mine])
    if mine.kind is Kind.PARAMETER:
        tape.biases.extend((layer, row) for layer in result.layers for row in mine.layers)
    return Shadow(layers, origin([result, tape.of(bias)]), result.source)


def _linear(tape: Tape, call: Call) -> Shadow:
    """linear(x, weight, bias), where it arrives whole."""
    x, weight = call.args[:2]
    if x.ndim == 1:
        result = _vector_product(tape, tape.of(weight), weight, tape.of(x), x)
    else:
        result = product(tape, x, weight, call.out.shape, transposed=True) if x.ndim == 2 else _batched(tape, x, weight)
    return _plus(tape, result, call.arg(2, "bias"), call)


def _batched(tape: Tape, x: torch.Tensor, weight: torch.Tensor) -> Shadow:
    """``linear`` on (..., k): the weight has no batch axes."""
    view = weight.reshape((1,) * (x.ndim - 2) + tuple(weight.shape))
    shadow = tape.of(weight)
    lead = x.ndim - weight.ndim
    tape.mark(view, shadow.with_layers([layer.reshape((1,) * lead + layer.shape) for layer in shadow.layers]))
    return product(tape, x, view, (*x.shape[:-1], weight.shape[0]), transposed=True)


def _vector_product(tape: Tape, matrix: Shadow, a: torch.Tensor, vector: Shadow, x: torch.Tensor) -> Shadow:
    """(n, k) @ (k,)."""
    mine, rows = _along(tape, matrix.layers, 1)
    theirs = _first(tape, [layer.reshape(-1) for layer in vector.layers])
    if x.shape[0] > 1:
        protect_from_uneven(tape, a, 1, [] if theirs is None else [theirs])
        protect_from_uneven(tape, x, 0, mine)
        contract_either(tape, _first(tape, mine), matrix.kind, theirs, vector.kind)
        note_products(tape, matrix, vector, mine)
    if matrix.kind is Kind.PARAMETER and vector.kind is not Kind.PARAMETER:
        for layer in rows:
            tape.open(layer)
        if matrix.source is not None:
            tape.count(matrix.source, 1.0)
    return Shadow([layer.reshape(-1) for layer in rows], origin([matrix, vector]))


def _mv(tape: Tape, call: Call) -> Shadow:
    """mv(matrix, vector), and addmv(bias, matrix, vector)."""
    *bias, a, x = call.args[:3] if call.op.endswith("addmv") else call.args[:2]
    result = _vector_product(tape, tape.of(a), a, tape.of(x), x)
    return _plus(tape, result, bias[0] if bias else None, call)


def _dot(tape: Tape, call: Call) -> Shadow:
    """dot(a, b), vdot(a, b)."""
    a, b = call.args[:2]
    first, second = tape.of(a), tape.of(b)
    if a.numel() > 1:
        contract_either(tape, _first(tape, first.layers), first.kind, _first(tape, second.layers), second.kind)
        note_products(tape, first, second, first.layers)
    return Shadow((), origin([first, second]))


def _matmul(tape: Tape, call: Call) -> Shadow:
    """matmul, where it arrives whole: vectors become matrices of one row or column."""
    a, b = call.args[:2]
    if a.ndim == 1 and b.ndim == 1:
        return _dot(tape, call)
    if b.ndim == 1 and a.ndim == 2:
        return _mv(tape, call)
    ndim = max(a.ndim, b.ndim)
    if min(a.ndim, b.ndim) < 2:
        for tensor in (a, b):
            tape.protect_shadow(tape.of(tensor), f"{call.op} of a vector and a batch")
        return Shadow(())
    return product(tape, _lifted(tape, a, ndim), _lifted(tape, b, ndim), call.out.shape)


def _lifted(tape: Tape, tensor: torch.Tensor, ndim: int) -> torch.Tensor:
    """A view of `tensor` with axes of size 1 in front, carrying its shadow."""
    if tensor.ndim == ndim:
        return tensor
    lead = ndim - tensor.ndim
    view = tensor.reshape((1,) * lead + tuple(tensor.shape))
    shadow = tape.of(tensor)
    tape.mark(view, shadow.with_layers([layer.reshape((1,) * lead + layer.shape) for layer in shadow.layers]))
    return view


RULES: dict[str, Rule] = {
    "aten.convolution": convolution,
    "aten._convolution": convolution,
    "aten.mm": _mm,
    "aten.bmm": _mm,
    "aten.addmm": _addmm,
    "aten.baddbmm": _addmm,
    "aten.linear": _linear,
    "aten.matmul": _matmul,
    "aten.mv": _mv,
    "aten.addmv": _mv,
    "aten.dot": _dot,
    "aten.vdot": _dot,
}
