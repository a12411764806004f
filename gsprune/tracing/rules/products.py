"""Rules of matrix products, and of grouped ones with a weight per group of rows (mixture of experts)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from gsprune.tracing.call import Call
from gsprune.tracing.constants import UNEVEN, uneven_axes
from gsprune.tracing.marks import is_noise, set_noise
from gsprune.tracing.rules.operands import Operand, are_biased, highest_kind, merge, operand, protect_all
from gsprune.tracing.rules.registry import aten
from gsprune.tracing.scales import dot_of
from gsprune.tracing.shadow import Kind, Labels, Shadow, varying
from gsprune.tracing.tape import Tape

__all__ = ["contract", "first_vector", "note_products", "vectors_along"]


def vectors_along(
    tape: Tape, layers: Sequence[Labels], axis: int, *, respect_explicit: bool = True
) -> tuple[list[Labels], list[Labels]]:
    """The layers that vary over `axis`, as vectors that are tied along all other axes; and the remaining layers.

    With `respect_explicit`, a layer whose channels the code places along another axis (`Split.is_explicit`) is tied
    along `axis`.
    """
    vectors, rest = [], []
    for layer in layers:
        if layer.shape[axis] == 1:
            rest.append(layer)
            continue
        kept = tape.kept_axis(layer, explicit_only=True) if respect_explicit and len(varying(layer)) > 1 else None
        if kept not in (None, axis):
            rest.append(tape.collapse(layer, [axis]))
        else:
            vectors.append(tape.vector(layer, axis))
    return vectors, rest


def first_vector(tape: Tape, vectors: Sequence[Labels]) -> Labels | None:
    """The first vector, which holds the channels. Others (kernel axes merged into the same axis) are protected."""
    for other in vectors[1:]:
        tape.protect(other, f"{tape.op}: another axis holds the channels")
    return vectors[0] if vectors else None


def contract(tape: Tape, a: Labels | None, a_kind: Kind, b: Labels | None, b_kind: Kind) -> None:
    """Sum over an axis that both operands have: unite its labels; if one side is fixed, protect the other.

    The axis of a weight (`b` of kind PARAMETER) consumes channels.
    """
    if b_kind is not Kind.PARAMETER:
        tape.unweighted.extend(layer for layer in (a, b) if layer is not None)
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


def _contract_either(tape: Tape, a: Labels | None, a_kind: Kind, b: Labels | None, b_kind: Kind) -> None:
    """`contract` with the weight on either side."""
    if a_kind is Kind.PARAMETER and b_kind is not Kind.PARAMETER:
        a, a_kind, b, b_kind = b, b_kind, a, a_kind
    contract(tape, a, a_kind, b, b_kind)


def note_products(tape: Tape, first: Shadow, second: Shadow, layers: Sequence[Labels]) -> None:
    """Note a sum of products of two activations, unless one is a weight's product: its removed channels are zero."""
    if first.kind is second.kind is Kind.ACTIVATION and first.source is None and second.source is None:
        tape.population(layers)


def _product(tape: Tape, a: torch.Tensor, b: torch.Tensor, transposed: bool = False) -> Shadow:
    """The shadow of a @ b as in ``torch.matmul``, or of a @ b^T. Vectors become matrices of one row or column."""
    ndim, is_row, is_column = max(a.ndim, b.ndim, 2), a.ndim == 1, b.ndim == 1
    result = _matrix_product(tape, _lifted(tape, a, ndim), _lifted(tape, b, ndim, is_column=is_column), transposed)
    axes = (*(ndim - 2,) * is_row, *(ndim - 1,) * is_column)
    return result.carry(lambda layer: layer.squeeze(axes)) if axes else result


def _matrix_product(tape: Tape, a: torch.Tensor, b: torch.Tensor, transposed: bool) -> Shadow:
    """The shadow of a @ b: (..., n, k) @ (..., k, m), or of a @ b^T with b (..., m, k).

    The labels of the contracted axis are united. The result has the labels of the rows of `a` and the columns of `b`.
    The columns of a parameter `b`, or the rows of a parameter `a`, are opened. Batch axes are broadcast.
    """
    num_columns = b.shape[-2 if transposed else -1]
    first, second = tape.of(a), tape.of(b)
    second_layers = [np.swapaxes(layer, -1, -2) for layer in second.layers] if transposed else second.layers
    # Between two activations, queries and keys keep their heads, even if a view determines another axis.
    has_weight = Kind.PARAMETER in (first.kind, second.kind)
    left_layers = _meet_fixed_axis(tape, first.layers, -1, second_layers, second.kind, -2)
    right_layers = _meet_fixed_axis(tape, second_layers, -2, first.layers, first.kind, -1)
    mine, rows = vectors_along(tape, left_layers, a.ndim - 1, respect_explicit=has_weight)
    theirs, columns = vectors_along(tape, right_layers, b.ndim - 2, respect_explicit=has_weight)
    _mark_heads(tape, [*first.layers, *second_layers])
    if a.shape[-1] > 1:
        _protect_from_uneven(tape, a, -1, theirs)
        _protect_from_uneven(tape, b, -1 if transposed else -2, mine)
        _contract_either(tape, first_vector(tape, mine), first.kind, first_vector(tape, theirs), second.kind)
        note_products(tape, first, second, mine)
    left = Operand(_equal_heads(tape, rows), (*a.shape[:-1], 1), first.kind)
    right = Operand(_equal_heads(tape, columns), (*b.shape[:-2], 1, num_columns), second.kind)
    for one, other in ((left, right), (right, left)):
        if one.kind is Kind.PARAMETER and other.kind is not Kind.PARAMETER:
            for layer in one.layers:
                if varying(layer)[-1] >= layer.ndim - 2:
                    tape.open(layer)
    kind = highest_kind([first, second])
    if kind is Kind.ACTIVATION and second.kind is Kind.PARAMETER and second.source is not None:
        tape.count(second.source, _num_uses(a, b))
    elif kind is Kind.ACTIVATION and first.kind is Kind.PARAMETER:
        tape.count(first.source, float(num_columns))
    weight = next((shadow.source for shadow in (second, first) if shadow.kind is Kind.PARAMETER), None)
    return Shadow(merge(tape, [left, right]), kind, weight, dot_of(first, second, a.ndim - 1))


def _meet_fixed_axis(
    tape: Tape, layers: Sequence[Labels], axis: int, others: Sequence[Labels], kind: Kind, other_axis: int
) -> list[Labels]:
    """The layers of one factor, whose contracted `axis` meets `other_axis` of the other factor, which is of `kind`.

    If the other factor is fixed there, layers that also vary over another axis are tied along `axis` (the matrix that a
    hypernetwork makes for a fixed number of inputs).
    """
    if kind is Kind.CONSTANT or any(layer.shape[other_axis] > 1 for layer in others):
        return list(layers)
    return [tape.collapse(layer, [axis % layer.ndim]) if len(varying(layer)) > 1 else layer for layer in layers]


def _num_uses(a: torch.Tensor, b: torch.Tensor) -> float:
    """The number of uses of each element of the right-hand matrix."""
    batch = float(np.prod(a.shape[:-2], dtype=np.float64))
    shared = float(np.prod(b.shape[:-2], dtype=np.float64))
    return batch * a.shape[-2] / max(shared, 1.0)


def _protect_from_uneven(tape: Tape, constant: torch.Tensor, axis: int, channels: Sequence[Labels]) -> None:
    """Protect channels whose sum is weighted by a constant that depends on positions (``arange``, ``eye``)."""
    if channels and axis % constant.ndim in uneven_axes(constant, tape.of(constant)):
        for layer in channels:
            tape.protect(layer, f"{tape.op} with {UNEVEN}")


def _mark_heads(tape: Tape, layers: Sequence[Labels]) -> None:
    """Note layers with heads: they vary over a batch axis and another one."""
    for layer in layers:
        axes = varying(layer)
        if len(axes) > 1 and axes[0] < layer.ndim - 2:
            tape.heads.append(layer)


def _equal_heads(tape: Tape, layers: Sequence[Labels]) -> list[Labels]:
    """The layers, tied over batch axes if they also vary over rows or columns: all heads stay, with equal widths."""
    return [
        tape.collapse(layer, range(layer.ndim - 2)) if varying(layer)[-1] >= layer.ndim - 2 else layer
        for layer in layers
    ]


def _lifted(tape: Tape, tensor: torch.Tensor, ndim: int, *, is_column: bool = False) -> torch.Tensor:
    """A view of `tensor` with axes of size 1 in front, carrying its shadow. A column has one of them at the end."""
    if tensor.ndim == ndim:
        return tensor
    front, behind = (1,) * (ndim - tensor.ndim - is_column), (1,) * is_column
    view = tensor.reshape(front + tuple(tensor.shape) + behind)
    tape.mark(view, tape.of(tensor).carry(lambda layer: layer.reshape(front + layer.shape + behind)))
    set_noise(view, is_noise(tensor))
    return view


def _with_bias(tape: Tape, result: Shadow, bias: torch.Tensor | None, call: Call) -> Shadow:
    """A product with a bias added."""
    if bias is None:
        return result
    shape = tuple(call.out.shape)
    own = operand(tape, bias, len(shape))
    layers = merge(tape, [Operand(result.layers, shape, result.kind), own])
    if own.kind is Kind.PARAMETER:
        tape.biases.extend((layer, row) for layer in result.layers for row in own.layers)
    is_source_kept = result.kind is Kind.PARAMETER or are_biased(result.layers, own.layers)
    return Shadow(layers, highest_kind([result, tape.of(bias)]), result.source if is_source_kept else None)


@aten("matmul mm bmm mv dot vdot")
def _matmul(tape: Tape, call: Call) -> Shadow:
    return _product(tape, call.args[0], call.args[1])


@aten("addmm baddbmm addmv")
def _addmm(tape: Tape, call: Call) -> Shadow:
    """addmm(bias, a, b), baddbmm and addmv."""
    bias, a, b = call.args[:3]
    return _with_bias(tape, _product(tape, a, b), bias, call)


@aten("linear")
def _linear(tape: Tape, call: Call) -> Shadow:
    """linear(x, weight, bias)."""
    x, weight = call.args[:2]
    return _with_bias(tape, _product(tape, x, weight, transposed=True), call.arg(2, "bias"), call)


@aten("_grouped_mm")
def _grouped_mm(tape: Tape, call: Call) -> Shadow:
    """Grouped products (x, weights, offs): each row of x (t, k) with its expert's weight (k, m). All experts stay."""
    x, weights = call.args[:2]
    if x.ndim != 2 or weights.ndim != 3:
        return protect_all(tape, call)
    tape.protect_along(tape.of(weights), [0], f"{call.op}: rows are numbered by their expert")
    shadow = _product(tape, x, weights)
    layers = [layer.squeeze(0) for layer in shadow.layers if layer.shape[0] == 1]
    return Shadow(layers, shadow.kind, shadow.source)


@aten("_trilinear")
def _trilinear(tape: Tape, call: Call) -> Shadow:
    """The product of `nn.Bilinear`, y_o = sum over i, j of x_i w_oij z_j: two axes of the weight consume channels."""
    x, weight, z, *axes = call.args[:7]
    kernel = tape.of(weight)
    if axes != [[1, 3], [0], [1, 2], [2, 3]] or kernel.kind is not Kind.PARAMETER:
        return protect_all(tape, call)
    rows = [layer.reshape(1, -1) for layer in kernel.layers if layer.shape[0] > 1]
    batch = []
    for tensor, axis in ((x, 1), (z, 2)):
        shadow = tape.of(tensor)
        vectors, rest = vectors_along(tape, shadow.layers, 1)
        own = [layer.reshape(-1) for layer in kernel.layers if layer.shape[axis] > 1]
        if tensor.shape[1] > 1:
            contract(tape, first_vector(tape, vectors), shadow.kind, first_vector(tape, own), kernel.kind)
        batch.append(Operand(rest, (tensor.shape[0], 1), shadow.kind))
    for layer in rows:
        tape.open(layer)
    tape.count(kernel.source, float(x.shape[0]))
    return Shadow([*merge(tape, batch), *rows], source=kernel.source)
