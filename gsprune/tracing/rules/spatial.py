"""Rules of pools, resampling, patches, and operations that turn channels into positions."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from gsprune.tracing.call import Call
from gsprune.tracing.rules.registry import aten
from gsprune.tracing.shadow import Labels, Shadow, varying
from gsprune.tracing.tape import Tape

__all__ = ["tied_over_space"]

_RANKED = (
    "avg_pool{0}d max_pool{0}d _adaptive_avg_pool{0}d adaptive_avg_pool{0}d adaptive_max_pool{0}d max_unpool{0}d "
    "max_pool{0}d_with_indices fractional_max_pool{0}d upsample_nearest{0}d _upsample_nearest_exact{0}d "
    "mkldnn_max_pool{0}d "
)


def tied_over_space(tape: Tape, call: Call, first: int, *, unmixed: Sequence[int] = ()) -> Shadow:
    """The first argument's shadow, tied along the axes from `first` on, whose positions the operation mixes.

    Layers that vary only over these axes are protected, unless they vary over `unmixed` axes (a kernel of size 1).
    """
    shadow, layers = tape.of(call.args[0]), []
    for layer in shadow.layers:
        is_spatial = all(axis >= first for axis in varying(layer))
        kept = unmixed if is_spatial else range(first)
        if any(layer.shape[axis] > 1 for axis in kept):
            layers.append(tape.collapse(layer, [axis for axis in range(first, layer.ndim) if axis not in kept]))
        else:
            tape.protect(layer, f"{call.op} mixes positions")
    return shadow.with_layers(layers)


@aten(
    "".join(map(_RANKED.format, (1, 2, 3))) + "upsample_linear1d upsample_bilinear2d upsample_bicubic2d "
    "upsample_trilinear3d _upsample_bilinear2d_aa _upsample_bicubic2d_aa grid_sampler_2d grid_sampler_3d "
    "mkldnn_adaptive_avg_pool2d"
)
def _resample(tape: Tape, call: Call) -> Shadow:
    """Pools and resampling: the axes before the spatial ones keep their labels."""
    ndim = call.args[0].ndim
    rank = int(call.op[-2]) if call.op[-2:-1].isdigit() else ndim - 2
    return tied_over_space(tape, call, ndim - rank)


@aten("pixel_shuffle")
def _pixel_shuffle(tape: Tape, call: Call) -> Shadow:
    """``pixel_shuffle``: r * r neighbouring channels become the positions of one channel, and are tied."""
    axis, factor = call.args[0].ndim - 3, int(call.args[1])

    def move(layer: Labels) -> Labels:
        if layer.shape[axis] == 1:
            return layer
        parts = layer.reshape(*layer.shape[:axis], -1, factor * factor, 1, 1)
        return tape.collapse(parts, [axis + 1]).reshape(*layer.shape[:axis], -1, 1, 1)

    return tied_over_space(tape, call, axis + 1).carry(move)


@aten("pixel_unshuffle")
def _pixel_unshuffle(tape: Tape, call: Call) -> Shadow:
    """pixel_unshuffle: every channel becomes r * r neighbouring ones."""
    axis, factor = call.args[0].ndim - 3, int(call.args[1])

    def move(layer: Labels) -> Labels:
        return np.repeat(layer, factor * factor, axis) if layer.shape[axis] > 1 else layer

    return tied_over_space(tape, call, axis + 1).carry(move)


@aten("channel_shuffle native_channel_shuffle")
def _channel_shuffle(tape: Tape, call: Call) -> Shadow:
    """channel_shuffle(x, groups): view, transpose, view; groups shrink equally."""
    groups = int(call.args[1])

    def move(layer: Labels) -> Labels:
        if layer.shape[1] == 1:
            return layer
        parts = layer.reshape(layer.shape[0], groups, -1, *layer.shape[2:])
        tape.split(parts, (1, 2), fixed_parts=True)
        return np.swapaxes(parts, 1, 2).reshape(layer.shape)

    return tape.of(call.args[0]).carry(move)


@aten("im2col")
def _im2col(tape: Tape, call: Call) -> Shadow:
    """Patches (N, C, H, W) -> (N, C * k, L): every channel becomes k neighbouring ones."""
    size = int(np.prod(call.args[1]))

    def move(layer: Labels) -> Labels:
        return np.repeat(layer[..., 0], size, 1) if layer.shape[1] > 1 else layer[..., 0]

    return tied_over_space(tape, call, 2).carry(move)


@aten("col2im")
def _col2im(tape: Tape, call: Call) -> Shadow:
    """Patches put back (N, C * k, L) -> (N, C, H, W): k neighbouring channels become one."""
    size = int(np.prod(call.args[2]))

    def move(layer: Labels) -> Labels:
        if layer.shape[1] > 1:
            layer = tape.collapse(layer.reshape(layer.shape[0], -1, size, 1), [2])[..., 0]
        return layer[..., None]

    return tied_over_space(tape, call, 2).carry(move)
