"""Rules of normalisation, softmax, and operations that rescale a tensor to a norm."""

from __future__ import annotations

import numpy as np
import torch

from gsprune.tracing.call import Call
from gsprune.tracing.rules.operands import along_axis, elementwise, highest_kind, merge, operand, row_operand
from gsprune.tracing.rules.registry import aten
from gsprune.tracing.shadow import Kind, Labels, Shadow, varying
from gsprune.tracing.tape import Tape


@aten(
    "native_batch_norm _native_batch_norm_legit _native_batch_norm_legit_no_training cudnn_batch_norm batch_norm "
    "miopen_batch_norm _batch_norm_impl_index _batch_norm_with_update _batch_norm_no_update"
)
def _batch_norm(tape: Tape, call: Call) -> list[Shadow]:
    """Batch norms: axis 1 of the input, affine parameters and running statistics are the same channels."""
    x = call.args[0]
    parameters = [value for value in call.args[1:5] if isinstance(value, torch.Tensor)]
    own = operand(tape, x, x.ndim)
    if next((value for value in call.args[3:] if isinstance(value, bool)), False):  # statistics of the batch
        tape.population(layer for layer in own.layers if varying(layer) != (1,))
    layers = merge(tape, [own, *(row_operand(tape, tensor, 1, x.ndim) for tensor in parameters if tensor.numel())])
    kind = highest_kind([tape.of(tensor) for tensor in (x, *parameters)])
    # A standardised weight is still the weight.
    return [Shadow(layers, kind, tape.of(x).source if kind is Kind.PARAMETER else None)]


@aten("native_layer_norm layer_norm _fused_rms_norm")
def _layer_norm(tape: Tape, call: Call) -> list[Shadow]:
    """layer_norm(x, normalized_shape, weight, bias, eps): reads its trailing axes as a population."""
    x = call.args[0]
    first = x.ndim - len(call.arg(1, "normalized_shape"))
    tensors = [value for value in (call.arg(2, "weight"), call.arg(3, "bias")) if isinstance(value, torch.Tensor)]
    tape.population(layer for layer in tape.of(x).layers if any(axis >= first for axis in varying(layer)))
    return [Shadow(merge(tape, [operand(tape, tensor, x.ndim) for tensor in (x, *tensors)]))]


@aten("native_group_norm group_norm")
def _group_norm(tape: Tape, call: Call) -> list[Shadow]:
    """Group norms: channels are on axis 1; position j of every group is tied, so that groups shrink equally."""
    x = call.args[0]
    whole = call.op == "aten.group_norm"
    groups, channels = call.args[1] if whole else call.args[6], x.shape[1]
    parameters = call.args[2:4] if whole else call.args[1:3]
    rows = [row_operand(tape, tensor, 1, x.ndim) for tensor in parameters if tensor is not None]
    layers = merge(tape, [operand(tape, x, x.ndim), *rows])

    def tied(layer: Labels) -> Labels:
        if layer.shape[1] == 1 or groups in (1, channels):
            return layer
        part = tape.collapse_parts(tape.vector(layer, 1), groups)
        return along_axis(np.tile(part, groups), 1, x.ndim)

    shadow = Shadow([tied(layer) for layer in layers])
    if groups < channels:
        tape.population(layer for layer in layers if layer.shape[1] > 1)
    return [shadow]


@aten("_softmax _log_softmax softmax log_softmax _safe_softmax")
def _softmax(tape: Tape, call: Call) -> Shadow:
    """Softmax along one axis: a population if that axis holds channels."""
    shadow, axis = tape.of(call.args[0]), call.axis(1)
    tape.population(layer for layer in shadow.layers if layer.shape[axis] > 1)
    return shadow


@aten("_weight_norm_interface _weight_norm")
def _weight_norm(tape: Tape, call: Call) -> list[Shadow]:
    """``weight_norm``: g * v / |v| along one axis."""
    direction, magnitude = call.args[:2]
    return [elementwise(tape, [direction, magnitude], direction.shape)]


@aten("renorm")
def _renorm(tape: Tape, call: Call) -> Shadow:
    """renorm(x, p, dim, maxnorm): each position of `dim` has a norm over all other axes.

    Rows of zeros do not change a weight's norms.
    """
    shadow, axis = tape.of(call.args[0]), call.axis(2)
    if shadow.kind is not Kind.PARAMETER:
        tape.population(layer for layer in shadow.layers if varying(layer) != (axis,))
    return elementwise(tape, [call.args[0]], call.args[0].shape)
