"""Sequences of different lengths, packed for a recurrent layer."""

from __future__ import annotations

import copy

import pytest
import torch
from masked_networks import masked_copy
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

import gsprune


class Sequences(nn.Module):
    """An encoder of steps, a recurrent layer over packed sequences, and a head."""

    def __init__(self, kind: type[nn.RNNBase], *, batch_first: bool, bidirectional: bool) -> None:
        super().__init__()
        self.encoder = nn.Linear(6, 16)
        self.recurrent = kind(16, 12, batch_first=batch_first, bidirectional=bidirectional)
        self.head = nn.Linear(12 * (1 + bidirectional), 3)
        self.batch_first = batch_first

    def forward(self, x: Tensor, lengths: Tensor) -> Tensor:
        x = self.encoder(x if self.batch_first else x.transpose(0, 1)).relu()
        packed = pack_padded_sequence(x, lengths, batch_first=self.batch_first, enforce_sorted=False)
        y, _ = pad_packed_sequence(self.recurrent(packed)[0], batch_first=self.batch_first)
        return self.head(y)


@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU, nn.RNN])
@pytest.mark.parametrize("batch_first", [True, False])
@pytest.mark.parametrize("bidirectional", [True, False])
def test_the_channels_of_packed_steps_are_pruned(
    kind: type[nn.RNNBase], batch_first: bool, bidirectional: bool
) -> None:
    torch.manual_seed(0)
    model = Sequences(kind, batch_first=batch_first, bidirectional=bidirectional).double()
    x, lengths = torch.randn(4, 7, 6, dtype=torch.float64), torch.tensor([3, 7, 2, 5])
    dense = copy.deepcopy(model)
    report = gsprune.prune_step(model, 0.5, example_inputs=(x, lengths))
    assert model.encoder.out_features == model.recurrent.input_size == 8
    assert model.recurrent.hidden_size == 6
    assert torch.allclose(model(x, lengths), masked_copy(dense, report.removed)(x, lengths), atol=1e-12)
