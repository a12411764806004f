"""Rules of the fused recurrent cells that CUDA has; elsewhere recurrent layers arrive as ordinary operations."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from gsprune.tracing.rules_common import Call, Rule, operand
from gsprune.tracing.shadow import Labels, Shadow
from gsprune.tracing.tape import Tape

__all__ = ["RULES"]


def _gates(tape: Tape, tensors: Sequence[torch.Tensor | None], count: int) -> list[Labels]:
    """The hidden units' layers: gate blocks of all tensors (..., count * hidden) meet, and are tied block by block."""
    merged = tape.merge([operand(tape, tensor, 2) for tensor in tensors if tensor is not None])
    return [
        tape.collapse(layer.reshape(layer.shape[0], count, -1), [1])[:, 0] if layer.shape[1] > 1 else layer
        for layer in merged
    ]


def _cell(count: int, outputs: int) -> Rule:
    """A cell (gates of the input, gates of the state, state, biases ...) with so many gates and outputs."""

    def rule(tape: Tape, call: Call) -> list[Shadow]:
        state = call.args[2]
        hidden = _gates(tape, [*call.args[:2], *call.args[3:5]], count)
        units = max((layer.shape[1] for layer in hidden), default=1)
        made = tape.of(state).layers
        if units > 1 and not any(layer.shape[-1] > 1 for layer in made):
            # A state of zeros that the module made has the hidden width; any other is fixed.
            if tape.of(state).kind:
                for layer in hidden:
                    tape.protect(layer, f"{call.op} with a state of fixed size")
        else:
            for layer in hidden:
                for other in made:
                    if layer.shape[1] > 1 and other.shape[-1] > 1:
                        tape.unite(layer, other)
        workspace = [np.tile(layer, (1, count)) if layer.shape[1] > 1 else layer for layer in hidden]
        return [*[Shadow(hidden)] * outputs, Shadow(workspace)]

    return rule


RULES: dict[str, Rule] = {
    "aten._thnn_fused_lstm_cell": _cell(4, 2),
    "aten._thnn_fused_gru_cell": _cell(3, 1),
}
