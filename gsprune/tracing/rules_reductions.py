"""Rules of reductions: sums, means, extremes, and what orders the elements along an axis."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from gsprune.tracing.rules_common import Call, Result, Rule, axis_of
from gsprune.tracing.shadow import EMPTY, Kind, Labels, Shadow, Sum, varying
from gsprune.tracing.tape import Tape

__all__ = ["RULES"]


def _dims(call: Call, index: int, ndim: int) -> tuple[int, ...]:
    """The reduced axes; none given means all."""
    dims = call.arg(index, "dim")
    if dims is None or (isinstance(dims, list | tuple) and not dims):
        return tuple(range(ndim))
    return tuple(axis_of(dim, ndim) for dim in ([dims] if isinstance(dims, int) else dims))


def _reduce(tape: Tape, call: Call, index: int, exact: bool, exact_of_weights: bool = True) -> Shadow:
    x = call.args[0]
    out = call.out if isinstance(call.out, torch.Tensor) else call.out[0]
    shadow = tape.of(x)
    axes = _dims(call, index, x.ndim) if x.ndim else ()
    layers = []
    for layer in shadow.layers:
        left = _reduced(tape, layer, axes)
        if left is not None:
            layers.append(left)
        elif not (exact_of_weights if shadow.kind is Kind.PARAMETER else exact):
            tape.population([layer])
    if out.ndim != x.ndim:
        layers = [layer.squeeze(axes) for layer in layers]
    return Shadow(layers, shadow.kind)


def _reduced(tape: Tape, layer: Labels, axes: Sequence[int]) -> Labels | None:
    """A layer after a reduction over `axes`, kept with size 1; None where it varied there alone.

    A layer that varies over another axis too: heads (the last of two axes is reduced) are read as a population, and so
    tied over the other; else (a mean over the positions of an un-flattened tensor, a maximum over pairs of channels
    whose size is written in the code) it is tied along the reduced ones.
    """
    over = varying(layer)
    inside = [axis for axis in over if axis in axes]
    if not inside:
        return layer
    if len(inside) == len(over):
        return None
    found = tape.kept_axis(layer)
    kept = over[1] if found is None else found
    if len(over) == 2 and inside == [over[1]] == [kept]:
        tape.collapse(layer, [over[0]])
        return None
    return tape.collapse(layer, inside)


def _sum(tape: Tape, call: Call) -> Shadow:
    """Sums: exact where a removed channel is zero, as the product of a weight is."""
    x = call.args[0]
    shadow = tape.of(x)
    result = _reduce(tape, call, 1, exact=shadow.source is not None)
    axes = _dims(call, 1, x.ndim) if x.ndim else ()
    layers = tuple(layer for layer in shadow.layers if set(varying(layer)) <= set(axes))
    if layers and shadow.kind is Kind.ACTIVATION:
        sizes = [layer.size for layer in layers]
        result.sum = Sum(layers, (*sizes, int(np.prod([x.shape[axis] for axis in axes]))))
    return result


def _mean(tape: Tape, call: Call) -> Shadow:
    """Means, extremes and moments over given axes."""
    return _reduce(tape, call, 1, exact=False, exact_of_weights=False)


def _norm(tape: Tape, call: Call) -> Shadow:
    """Norms, whose axes come after the order; those of a weight do not see rows of zeros."""
    return _reduce(tape, call, 2, exact=False)


def _pairs(rule: Rule) -> Rule:
    """A rule for an operation with several outputs of the same shape (values and indices)."""

    def paired(tape: Tape, call: Call) -> Result:
        result = rule(tape, call)
        assert isinstance(result, Shadow)
        if isinstance(call.out, torch.Tensor):
            return result
        return [result] * len(call.out)

    return paired


def _extreme(tape: Tape, call: Call) -> Result:
    """``max`` and ``min``: a population; along one axis, the second output holds positions of that axis."""
    result = _pairs(_mean)(tape, call)
    if isinstance(result, Shadow):
        return result
    return [result[0], _positions_along(tape, call, result[1].layers)]


def _positions_along(tape: Tape, call: Call, layers: Sequence[Labels]) -> Shadow:
    """Indices from a reduction of the first argument: values are positions of the layers that were reduced."""
    shadow, ndim = tape.of(call.args[0]), call.args[0].ndim
    axes = _dims(call, 1, ndim) if ndim else ()
    reduced = [layer for layer in shadow.layers if any(axis in axes for axis in varying(layer))]
    return Shadow(layers, shadow.kind, positions=reduced)


def _arg_extreme(tape: Tape, call: Call) -> Shadow:
    """``argmax`` and ``argmin``: positions of one axis, or of the flattened tensor."""
    noted = len(tape.populations)
    layers = _reduce(tape, call, 1, exact=False).layers
    del tape.populations[noted:]  # what uses the positions protects the channels
    return _positions_along(tape, call, layers)


def _median(tape: Tape, call: Call) -> Result:
    """``median(x)`` reads all elements as a population; ``median(x, dim)`` orders those of one axis."""
    return _all(tape, call) if call.arg(1, "dim") is None else _along(1)(tape, call)


def _all(tape: Tape, call: Call) -> Shadow:
    """A function of all elements together: a population of every axis."""
    for shadow in map(tape.of, call.tensors()):
        if shadow.kind is Kind.ACTIVATION:
            tape.population(shadow.layers)
    return Shadow((), max((tape.of(tensor).kind for tensor in call.tensors()), default=Kind.CONSTANT))


def _along(index: int, default: int = -1) -> Rule:
    """A rule for what orders or numbers the elements along one axis: channels there are protected, others carry."""

    def rule(tape: Tape, call: Call) -> Result:
        x = call.args[0]
        out = call.out if isinstance(call.out, torch.Tensor) else call.out[0]
        dim = call.arg(index, "dim", default)
        shadow = tape.of(x)
        if dim is None or x.ndim == 0:
            tape.protect_shadow(shadow, f"{call.op} over channels")
            return EMPTY if out is call.out else [EMPTY] * len(call.out)
        axis = axis_of(int(dim), x.ndim)
        layers = []
        for layer in shadow.layers:
            if layer.shape[axis] > 1:
                tape.protect(layer, f"{call.op} over channels")
            else:
                layers.append(layer.squeeze(axis) if out.ndim < x.ndim else layer)
        result = shadow.with_layers(layers)
        return result if out is call.out else [result] * len(call.out)

    return rule


def _table(rule: Rule, names: str) -> dict[str, Rule]:
    return {f"aten.{name}": rule for name in names.split()}


RULES: dict[str, Rule] = {
    **_table(_sum, "sum nansum"),
    **_table(
        _pairs(_mean),
        "mean nanmean amax amin aminmax var std var_mean std_mean logsumexp prod all any count_nonzero",
    ),
    **_table(_extreme, "max min"),
    **_table(_arg_extreme, "argmax argmin"),
    **_table(_median, "median nanmedian"),
    **_table(_norm, "norm linalg_vector_norm"),
    **_table(_all, "_is_all_true _is_any_true equal _local_scalar_dense item is_nonzero histc"),
    **_table(_along(1), "cumsum cumprod logcumsumexp cummax cummin sort argsort mode"),
    **_table(_along(2), "topk kthvalue"),
}
