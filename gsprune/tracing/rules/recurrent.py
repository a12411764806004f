"""Rules of CUDA's fused recurrent cells. On other devices recurrent layers consist of ordinary operations."""

from __future__ import annotations

import numpy as np

from gsprune.tracing.call import Call
from gsprune.tracing.rules.operands import merge, operand
from gsprune.tracing.rules.registry import aten
from gsprune.tracing.shadow import Kind, Labels, Shadow
from gsprune.tracing.tape import Tape


@aten("_thnn_fused_lstm_cell")
def _lstm(tape: Tape, call: Call) -> list[Shadow]:
    """The new hidden and cell states, then the workspace."""
    hidden, workspace = _cell(tape, call, 4)
    return [hidden, hidden, workspace]


@aten("_thnn_fused_gru_cell")
def _gru(tape: Tape, call: Call) -> list[Shadow]:
    """The new hidden state, then the workspace."""
    return _cell(tape, call, 3)


def _cell(tape: Tape, call: Call, num_gates: int) -> list[Shadow]:
    """The new state and the workspace of ``cell(gates of the input, gates of the state, state, biases, ...)``.

    The gates of all tensors (..., num_gates * hidden) are united, and the blocks of one tensor are tied.
    """
    tensors = [tensor for tensor in (*call.args[:2], *call.args[3:5]) if tensor is not None]
    layers = merge(tape, [operand(tape, tensor, 2) for tensor in tensors])
    hidden = [_tied_gates(tape, layer, num_gates) for layer in layers]
    state = tape.of(call.args[2])
    units = [layer for layer in hidden if layer.shape[1] > 1]
    states = [layer for layer in state.layers if layer.shape[-1] > 1]
    if units and not states and state.kind is not Kind.CONSTANT:
        # A state of zeros that the module made has the hidden width; any other is fixed.
        for layer in hidden:
            tape.protect(layer, f"{call.op} with a state of fixed size")
    for layer in units:
        for other in states:
            tape.unite(layer, other)
    workspace = [np.tile(layer, (1, num_gates)) if layer.shape[1] > 1 else layer for layer in hidden]
    return [Shadow(hidden), Shadow(workspace)]


def _tied_gates(tape: Tape, layer: Labels, num_gates: int) -> Labels:
    if layer.shape[1] == 1:
        return layer
    return tape.collapse(layer.reshape(layer.shape[0], num_gates, -1), [1])[:, 0]
