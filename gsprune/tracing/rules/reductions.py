"""Rules of reductions: sums, means, extremes, and operations that order the elements along an axis."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from torch import Tensor

from gsprune.tracing.call import Call, axis_of
from gsprune.tracing.rules.operands import elementwise, highest_kind
from gsprune.tracing.rules.registry import aten
from gsprune.tracing.shadow import EMPTY, Kind, Labels, Shadow, Sum, varying
from gsprune.tracing.tape import Tape


def _dims(call: Call, index: int = 1) -> tuple[int, ...]:
    """The reduced axes; no argument means all."""
    dims, ndim = call.arg(index, "dim"), call.args[0].ndim
    if ndim == 0 or dims is None or (isinstance(dims, list | tuple) and not dims):
        return tuple(range(ndim))
    return tuple(axis_of(dim, ndim) for dim in ([dims] if isinstance(dims, int) else dims))


def _reduce(tape: Tape, call: Call, axes: Sequence[int], *, exact: bool) -> Shadow:
    """The shadow of a reduction over `axes`. Unless it is `exact`, it reads channels there as a population."""
    shadow, layers = tape.of(call.args[0]), []
    for layer in shadow.layers:
        rest = _reduce_layer(tape, layer, axes)
        if rest is not None:
            layers.append(rest)
        else:
            tape.unweighted.append(layer)
            if not exact:
                tape.population([layer])
    if call.outputs()[0].ndim != call.args[0].ndim:
        layers = [layer.squeeze(tuple(axes)) for layer in layers]
    return Shadow(layers, shadow.kind)


def _reduce_layer(tape: Tape, layer: Labels, axes: Sequence[int]) -> Labels | None:
    """A layer after a reduction over `axes`, which keep size 1; None if its channels were reduced.

    A layer that varies over two axes, of which the second is reduced and holds the channels, has heads: they are tied.
    Any other layer that also varies over a kept axis is tied along the reduced axes (a mean over the positions of an
    un-flattened tensor, a maximum over pairs of channels).
    """
    over = varying(layer)
    inside = [axis for axis in over if axis in axes]
    if not inside:
        return layer
    if not _is_reduced(tape, layer, axes):
        return tape.collapse(layer, inside)
    if len(inside) < len(over):
        tape.collapse(layer, [over[0]])
    return None


def _is_reduced(tape: Tape, layer: Labels, axes: Sequence[int]) -> bool:
    """True if a reduction over `axes` reduces the channels of a layer, within each head if it has heads."""
    over = varying(layer)
    inside = [axis for axis in over if axis in axes]
    if len(inside) == len(over):
        return True
    return len(over) == 2 and inside == [over[1]] and tape.kept_axis(layer) in (None, over[1])


@aten("sum nansum")
def _sum(tape: Tape, call: Call) -> Shadow:
    """Sums. They are exact over a weight's product, whose removed channels are zero."""
    shadow, axes = tape.of(call.args[0]), _dims(call)
    result = _reduce(tape, call, axes, exact=shadow.kind is Kind.PARAMETER or shadow.source is not None)
    return replace(result, sum=_sum_of(tape, call, axes))


def _sum_of(tape: Tape, call: Call, axes: Sequence[int]) -> Sum | None:
    """The channels over which a reduction of activations sums; None if it sums over none."""
    x, shadow = call.args[0], tape.of(call.args[0])
    layers = [layer for layer in shadow.layers if _is_reduced(tape, layer, axes)]
    if not layers or shadow.kind is not Kind.ACTIVATION:
        return None
    along = [[layer.shape[axis] for axis in axes] for layer in layers]
    return Sum(tuple(layers), tuple(math.prod(sizes) for sizes in (*along, [x.shape[axis] for axis in axes])))


@aten("mean nanmean amax amin aminmax var std var_mean std_mean logsumexp prod all any count_nonzero")
def _statistic(tape: Tape, call: Call) -> Shadow:
    """Means, extremes and moments over given axes."""
    return _reduce(tape, call, _dims(call), exact=False)


@aten("norm linalg_vector_norm")
def _norm(tape: Tape, call: Call) -> Shadow:
    """Norms, whose axes are the third argument. Rows of zeros do not change a weight's norm.

    A Euclidean norm divided by the root of the number of channels is a root mean square.
    """
    axes, order = _dims(call, 2), call.args[1] if len(call.args) > 1 else 2
    result = _reduce(tape, call, axes, exact=tape.of(call.args[0]).kind is Kind.PARAMETER)
    squares = _sum_of(tape, call, axes) if order in (None, 2) else None
    if squares is None:
        return result
    return replace(result, sum=squares._replace(counts=tuple(math.sqrt(count) for count in squares.counts)))


@aten("mse_loss smooth_l1_loss huber_loss soft_margin_loss binary_cross_entropy binary_cross_entropy_with_logits")
def _loss(tape: Tape, call: Call) -> Shadow:
    """Element-wise losses. Their sum or mean reads channels as a population."""
    inputs = call.tensors()
    shape = np.broadcast_shapes(*(tensor.shape for tensor in inputs))
    shadow = elementwise(tape, inputs, shape)
    if call.out.shape == shape:
        return replace(shadow, source=None)
    tape.unweighted.extend(shadow.layers)
    tape.population(shadow.layers)
    return Shadow(kind=shadow.kind)


@aten("max min")
def _extreme(tape: Tape, call: Call) -> Shadow | list[Shadow]:
    """``max`` and ``min``: a population; along one axis, the second output holds positions of that axis."""
    result = _statistic(tape, call)
    return result if isinstance(call.out, Tensor) else [result, _with_positions(tape, call, result)]


@aten("argmax argmin")
def _arg_extreme(tape: Tape, call: Call) -> Shadow:
    """``argmax`` and ``argmin``: positions along one axis, or in the flattened tensor."""
    return _with_positions(tape, call, _reduce(tape, call, _dims(call), exact=True))


def _with_positions(tape: Tape, call: Call, result: Shadow) -> Shadow:
    """The shadow of the indices from a reduction: their values are positions along the reduced layers."""
    axes = _dims(call)
    reduced = [layer for layer in tape.of(call.args[0]).layers if any(axis in axes for axis in varying(layer))]
    return replace(result, positions=reduced)


@aten("median nanmedian")
def _median(tape: Tape, call: Call) -> Shadow:
    """``median(x)`` reads all elements as a population; ``median(x, dim)`` orders the elements along one axis."""
    return _whole(tape, call) if call.arg(1, "dim") is None else _order(tape, call)


@aten("_is_all_true _is_any_true equal _local_scalar_dense item is_nonzero histc")
def _whole(tape: Tape, call: Call) -> Shadow:
    """A function of all elements together: a population of every axis."""
    shadows = [tape.of(tensor) for tensor in call.tensors()]
    for shadow in shadows:
        if shadow.kind is Kind.ACTIVATION:
            tape.population(shadow.layers)
    return Shadow(kind=highest_kind(shadows))


@aten("cumsum cumprod logcumsumexp cummax cummin sort argsort mode")
def _order(tape: Tape, call: Call, index: int = 1) -> Shadow:
    """An operation that orders or numbers elements along one axis, argument `index`: channels there are protected."""
    x, shadow = call.args[0], tape.of(call.args[0])
    reason = f"{call.op} over channels"
    if call.arg(index, "dim", -1) is None or x.ndim == 0:
        tape.protect(shadow, reason)
        return EMPTY
    axis = call.axis(index, default=-1)
    rest = tape.protect_along(shadow, [axis], reason)
    return rest.carry(lambda layer: layer.squeeze(axis)) if call.outputs()[0].ndim < x.ndim else rest


@aten("topk kthvalue")
def _top(tape: Tape, call: Call) -> Shadow:
    return _order(tape, call, 2)
