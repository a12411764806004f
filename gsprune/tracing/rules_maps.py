"""Rules of element-wise functions, normalisation, pooling and reductions."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import torch

from gsprune.tracing.rules_common import (
    Call,
    Result,
    Rule,
    aligned,
    axis_of,
    channels_out,
    common_source,
    elementwise,
    operand,
    origin,
)
from gsprune.tracing.scales import note_factor
from gsprune.tracing.shadow import EMPTY, Kind, Labels, Shadow, varying
from gsprune.tracing.tape import Operand, Tape

__all__ = ["RULES", "pointwise", "spatial"]


# Operations under which the product of a weight stays one: True where the other operand is a factor.
_LINEAR = {"aten.mul": True, "aten.div": True, "aten.add": False, "aten.sub": False, "aten.neg": False}


def pointwise(tape: Tape, call: Call) -> Result:
    """Any function of elements that meet by broadcasting; also what is not listed but tagged so by torch."""
    out = call.out if isinstance(call.out, torch.Tensor) else call.out[0]
    is_scaled = note_factor(tape, call)
    shadow = elementwise(tape, call.tensors(), out.shape)
    if shadow.kind is Kind.ACTIVATION and call.op in _LINEAR:
        shadow.source = None if is_scaled else _still_product(tape, call)
    return shadow if out is call.out else [shadow] * len(call.out)


def _still_product(tape: Tape, call: Call) -> str | None:
    """The weight of which the result is a product still: scaled by fixed factors, summed with its like or a bias."""
    shadows = [tape.of(tensor) for tensor in call.tensors()]
    products = [shadow for shadow in shadows if shadow.source and shadow.kind is Kind.ACTIVATION]
    others = [shadow for shadow in shadows if shadow not in products]
    if not products or (len(shadows) == 1 and call.op in ("aten.add", "aten.sub")):
        return None
    if _LINEAR[call.op]:
        return products[0].source if len(products) == 1 and not any(shadow.layers for shadow in others) else None
    if any(shadow.kind is not Kind.PARAMETER for shadow in others):
        return None
    for shadow in products:
        ndim = shadow.layers[0].ndim if shadow.layers else 0
        for layer in shadow.layers:
            rows = [row for other in others for row in other.layers]
            tape.biases.extend((layer, aligned(row, ndim)) for row in rows)
    return common_source(products)


def _parameters(tape: Tape, tensors: Iterable[torch.Tensor | None], axis: int, ndim: int) -> list[Operand]:
    """Per-channel parameters as operands along `axis`."""
    operands = []
    for tensor in tensors:
        if tensor is not None and tensor.numel():
            sizes = tuple(tensor.numel() if other == axis else 1 for other in range(ndim))
            shadow = tape.of(tensor)
            operands.append(
                Operand(tuple(channels_out(layer, axis, ndim) for layer in shadow.layers), sizes, shadow.kind)
            )
    return operands


def _batch_norm(tape: Tape, call: Call) -> list[Shadow]:
    """Batch norms: axis 1 of the input, affine parameters and running statistics are the same channels."""
    x = call.args[0]
    parameters = [value for value in call.args[1:5] if isinstance(value, torch.Tensor)]
    mine = operand(tape, x, x.ndim)
    whole = next((value for value in call.args[3:] if isinstance(value, bool)), False)  # statistics of the batch
    if whole:
        tape.population(layer for layer in mine.layers if varying(layer) != (1,))
    layers = tape.merge([mine, *_parameters(tape, parameters, 1, x.ndim)])
    kind = origin([tape.of(tensor) for tensor in (x, *parameters)])
    return [Shadow(layers, kind, tape.of(x).source if kind is Kind.PARAMETER else None)]  # of a weight: standardised


def _layer_norm(tape: Tape, call: Call) -> list[Shadow]:
    """layer_norm(x, normalized_shape, weight, bias, eps): reads its trailing axes as a population."""
    x = call.args[0]
    first = x.ndim - len(call.arg(1, "normalized_shape"))
    tensors = [value for value in (call.arg(2, "weight"), call.arg(3, "bias")) if isinstance(value, torch.Tensor)]
    tape.population(layer for layer in tape.of(x).layers if any(axis >= first for axis in varying(layer)))
    operands = [operand(tape, tensor, x.ndim) for tensor in (x, *tensors)]
    return [Shadow(tape.merge(operands))]


def _group_norm(tape: Tape, call: Call) -> list[Shadow]:
    """Group norm: position j of every group is tied, so that groups stay equal; axis 1 are the channels."""
    x = call.args[0]
    whole = call.op == "aten.group_norm"
    groups = call.args[1] if whole else call.args[6]
    parameters = call.args[2:4] if whole else call.args[1:3]
    layers = tape.merge([operand(tape, x, x.ndim), *_parameters(tape, parameters, 1, x.ndim)])
    channels = x.shape[1]
    tied = []
    for layer in layers:
        if layer.shape[1] == 1 or groups in (1, channels):
            tied.append(layer)
            continue
        vector = tape.vector(layer, 1)
        tied.append(
            channels_out(np.tile(tape.collapse(vector.reshape(groups, -1), [0]).reshape(-1), groups), 1, x.ndim)
        )
    if groups < channels:
        tape.population(layer for layer in layers if layer.shape[1] > 1)
    return [Shadow(tied)]


def _softmax(tape: Tape, call: Call) -> Shadow:
    """``softmax`` and its kin along one axis: a population where that axis holds channels."""
    x = call.args[0]
    axis = axis_of(call.arg(1, "dim"), max(x.ndim, 1))
    shadow = tape.of(x)
    tape.population(layer for layer in shadow.layers if layer.shape[axis] > 1)
    return shadow


def spatial(tape: Tape, call: Call) -> list[Shadow]:
    """Pools and resampling: axes 0 and 1 carry (or the leading ones of an input without a batch), space is tied.

    Labels that vary over space alone are protected: positions mix.
    """
    x, out = call.args[0], call.out if isinstance(call.out, torch.Tensor) else call.out[0]
    shadow = tape.of(x)
    rank = int(call.op[-2]) if call.op[-2:-1].isdigit() else x.ndim - 2
    first = x.ndim - rank
    layers = []
    for layer in shadow.layers:
        if all(axis >= first for axis in varying(layer)):
            tape.protect(layer, f"{call.op} mixes positions")
        else:
            layers.append(tape.collapse(layer, range(first, x.ndim)))
    result = shadow.with_layers(layers)
    return [result] * (1 if out is call.out else len(call.out))


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
    return _reduce(tape, call, 1, exact=tape.of(call.args[0]).source is not None)


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


def _pixel_shuffle(tape: Tape, call: Call) -> Shadow:
    """pixel_shuffle: r * r neighbouring channels become the positions of one, and go together."""
    x, factor = call.args[0], int(call.args[1])
    shadow, axis = tape.of(x), x.ndim - 3
    layers = []
    for whole in shadow.layers:
        layer = tape.collapse(whole, (axis + 1, axis + 2))
        if layer.shape[axis] > 1:
            parts = layer.reshape(*layer.shape[:axis], -1, factor * factor, 1, 1)
            layer = tape.collapse(parts, [axis + 1]).reshape(*layer.shape[:axis], -1, 1, 1)
        if layer.size > 1:
            layers.append(layer)
    return shadow.with_layers(layers)


def _pixel_unshuffle(tape: Tape, call: Call) -> Shadow:
    """pixel_unshuffle: every channel becomes r * r neighbouring ones."""
    x, factor = call.args[0], int(call.args[1])
    shadow, axis = tape.of(x), x.ndim - 3
    tied = [tape.collapse(layer, (axis + 1, axis + 2)) for layer in shadow.layers]
    return shadow.with_layers(
        [np.repeat(layer, factor * factor, axis) if layer.shape[axis] > 1 else layer for layer in tied]
    )


def _channel_shuffle(tape: Tape, call: Call) -> Shadow:
    """channel_shuffle(x, groups): view, transpose, view; groups stay equal."""
    x, groups = call.args[0], int(call.args[1])
    layers = []
    for layer in tape.of(x).layers:
        if layer.shape[1] == 1:
            layers.append(layer)
            continue
        parts = layer.reshape(layer.shape[0], groups, -1, *layer.shape[2:])
        tape.split(parts, (1, 2), counted=True)
        layers.append(np.swapaxes(parts, 1, 2).reshape(layer.shape))
    return tape.of(x).with_layers(layers)


def _im2col(tape: Tape, call: Call) -> Shadow:
    """Patches (N, C, H, W) -> (N, C * k, L): every channel becomes k neighbouring ones."""
    shadow = tape.of(call.args[0])
    size = int(np.prod(call.args[1]))
    layers = []
    for layer in shadow.layers:
        if layer.shape[1] == 1 and layer.shape[0] == 1:
            tape.protect(layer, f"{call.op} mixes positions")
            continue
        tied = tape.collapse(layer, (2, 3))[..., 0]
        layers.append(np.repeat(tied, size, 1) if tied.shape[1] > 1 else tied)
    return shadow.with_layers(layers)


def _col2im(tape: Tape, call: Call) -> Shadow:
    """Patches put back (N, C * k, L) -> (N, C, H, W): k neighbouring channels become one."""
    shadow = tape.of(call.args[0])
    size = int(np.prod(call.args[2]))
    layers = []
    for layer in shadow.layers:
        if layer.shape[1] == 1 and layer.shape[0] == 1:
            tape.protect(layer, f"{call.op} mixes positions")
            continue
        tied = tape.collapse(layer, (2,))
        if tied.shape[1] > 1:
            tied = tape.collapse(tied.reshape(tied.shape[0], -1, size, 1), [2])[..., 0]
        layers.append(tied[..., None])
    return shadow.with_layers([layer for layer in layers if layer.size > 1])


def _glu(tape: Tape, call: Call) -> Shadow:
    """``glu(x, dim)``: the first half times the sigmoid of the second."""
    x = call.args[0]
    axis = axis_of(call.arg(1, "dim", -1), x.ndim)
    layers = []
    for layer in tape.of(x).layers:
        if layer.shape[axis] == 1:
            layers.append(layer)
            continue
        first, second = np.split(layer, 2, axis)
        layers.append(tape.unite(first, second))
    return tape.of(x).with_layers([layer for layer in layers if layer.size > 1])


def _table(rule: Rule, names: str) -> dict[str, Rule]:
    return {f"aten.{name}": rule for name in names.split()}


_RANKED = (
    "avg_pool{}d max_pool{}d _adaptive_avg_pool{}d adaptive_avg_pool{}d adaptive_max_pool{}d max_pool{}d_with_indices "
    "fractional_max_pool{}d max_unpool{}d upsample_nearest{}d _upsample_nearest_exact{}d mkldnn_max_pool{}d"
)
_SPATIAL = (
    *(_RANKED.format(*[rank] * _RANKED.count("{}")) for rank in (1, 2, 3)),
    "upsample_linear1d upsample_bilinear2d upsample_bicubic2d upsample_trilinear3d _upsample_bilinear2d_aa",
    "_upsample_bicubic2d_aa grid_sampler_2d grid_sampler_3d mkldnn_adaptive_avg_pool2d",
)

RULES: dict[str, Rule] = {
    # What torch does not tag as pointwise, and what overwrites a tensor element by element.
    **_table(
        pointwise,
        "_prelu_kernel prelu hardswish log_sigmoid_forward rrelu_with_noise where masked_fill copy clamp clip addcmul "
        "addcdiv lerp fill zero bernoulli uniform normal random exponential cauchy log_normal geometric relu6",
    ),
    **_table(
        _batch_norm,
        "native_batch_norm _native_batch_norm_legit _native_batch_norm_legit_no_training cudnn_batch_norm batch_norm "
        "miopen_batch_norm _batch_norm_impl_index _batch_norm_with_update _batch_norm_no_update",
    ),
    **_table(_layer_norm, "native_layer_norm layer_norm _fused_rms_norm"),
    **_table(_group_norm, "native_group_norm group_norm"),
    **_table(_softmax, "_softmax _log_softmax softmax log_softmax _safe_softmax"),
    **_table(spatial, " ".join(_SPATIAL)),
    **_table(_sum, "sum nansum"),
    **_table(
        _pairs(_mean),
        "mean nanmean amax amin aminmax max min var std var_mean std_mean logsumexp prod all any count_nonzero",
    ),
    **_table(_norm, "norm linalg_vector_norm"),
    **_table(_all, "_is_all_true _is_any_true equal _local_scalar_dense item is_nonzero histc"),
    **_table(_along(1), "cumsum cumprod logcumsumexp cummax cummin argmax argmin sort argsort median nanmedian mode"),
    **_table(_along(2), "topk kthvalue"),
    **_table(_glu, "glu"),
    **_table(_im2col, "im2col"),
    **_table(_col2im, "col2im"),
    **_table(_pixel_shuffle, "pixel_shuffle"),
    **_table(_pixel_unshuffle, "pixel_unshuffle"),
    **_table(_channel_shuffle, "channel_shuffle native_channel_shuffle"),
}
