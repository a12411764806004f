"""The fused recurrent cells of CUDA: their rules, applied to tensors without running them."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from gsprune.tracing.call import Call
from gsprune.tracing.components import Components
from gsprune.tracing.rules.registry import RULES
from gsprune.tracing.shadow import Kind, Shadow
from gsprune.tracing.tape import Tape


class Cell(nn.Module):
    def __init__(self, gates: int, hidden: int) -> None:
        super().__init__()
        self.weight_ih, self.weight_hh = nn.Linear(3, gates * hidden), nn.Linear(hidden, gates * hidden)


def applied(name: str, gates: int, kind: Kind) -> Components:
    """Components after one cell whose state is of that kind."""
    cell = Cell(gates, 2)
    tape = Tape(cell)
    tensors = []
    for layer in (cell.weight_ih, cell.weight_hh):
        gate = torch.zeros(5, gates * 2)
        rows = tape.of(layer.weight).layers[0].reshape(1, -1)
        tape.open(rows)
        tape.mark(gate, Shadow([rows]))
        tensors.append(gate)
    state = torch.zeros(5, 2)
    tape.mark(state, Shadow((), kind))
    result = RULES[name](tape, Call(name, (*tensors, state, cell.weight_ih.bias, cell.weight_hh.bias), {}, None))
    assert isinstance(result, list)
    assert [layer.shape for layer in result[0].layers] == [(1, 2)]
    return Components(tape)


@pytest.mark.parametrize(("name", "gates"), [("aten._thnn_fused_lstm_cell", 4), ("aten._thnn_fused_gru_cell", 3)])
def test_the_gates_of_a_fused_cell_are_tied(name: str, gates: int) -> None:
    components = applied(name, gates, Kind.CONSTANT)
    rows = components.labels[1 : 1 + 2 * gates]
    assert rows.tolist() == [rows[0], rows[1]] * gates
    assert rows[0] != rows[1]
    assert components.prunable[rows].all()


@pytest.mark.parametrize(("name", "gates"), [("aten._thnn_fused_lstm_cell", 4), ("aten._thnn_fused_gru_cell", 3)])
def test_a_state_from_outside_keeps_the_width(name: str, gates: int) -> None:
    components = applied(name, gates, Kind.ACTIVATION)
    assert not np.any(components.prunable[components.labels[1 : 1 + 2 * gates]])
