"""A first state of zeros that is joined to its input follows the state that the loop computes."""

from __future__ import annotations

import copy

import pytest
import torch
from masked_networks import masked_copy
from torch import Tensor, nn

import gsprune
from gsprune.tracing import trace


class ConvLSTM(nn.Module):
    """A convolutional LSTM of one's own, over the frames of a clip."""

    def __init__(self, width: int = 8) -> None:
        super().__init__()
        self.width = width
        self.encoder = nn.Conv2d(3, 6, 3, padding=1)
        self.cell = nn.Conv2d(6 + width, 4 * width, 3, padding=1)
        self.head = nn.Linear(width, 5)

    def start(self, x: Tensor) -> Tensor:
        """The state before the first frame."""
        return torch.zeros(len(x), self.width, *x.shape[-2:], dtype=x.dtype)

    def forward(self, x: Tensor) -> Tensor:
        h = c = self.start(x)
        for frame in x.unbind(1):
            gates = self.cell(torch.cat([self.encoder(frame).relu(), h], 1))
            i, f, o, g = gates.split(self.width, 1)
            c = f.sigmoid() * c + i.sigmoid() * g.tanh()
            h = o.sigmoid() * c.tanh()
        return self.head(h.mean((2, 3)))


class Ones(ConvLSTM):
    """The state starts at one number, made by another constructor."""

    def start(self, x: Tensor) -> Tensor:
        return 0.5 * x.new_ones(1).expand(len(x), self.width, *x.shape[-2:]).tanh()


class OfLayer(ConvLSTM):
    """The state's width is read off a layer."""

    def start(self, x: Tensor) -> Tensor:
        return x.new_zeros((len(x), self.cell.out_channels // 4, *x.shape[-2:]))


class StateFirst(nn.Module):
    """A recurrent cell of vectors, with the state in front."""

    def __init__(self, width: int = 8) -> None:
        super().__init__()
        self.width = width
        self.cell, self.head = nn.Linear(width + 3, width), nn.Linear(width, 5)

    def forward(self, x: Tensor) -> Tensor:
        h = torch.full((len(x), self.width), 0.0, dtype=x.dtype)
        for frame in x.mean((3, 4)).unbind(1):
            h = torch.tanh(self.cell(torch.cat((h, frame), -1)))
        return self.head(h)


X = torch.randn(2, 3, 3, 4, 4, dtype=torch.float64)


@pytest.mark.parametrize("network", [ConvLSTM, Ones, OfLayer, StateFirst])
def test_the_columns_behind_a_first_state_are_cut_like_the_state(network: type[nn.Module]) -> None:
    torch.manual_seed(0)
    model = network().double()
    dense = copy.deepcopy(model)
    report = gsprune.prune_step(model, 0.5, example_inputs=X)
    assert {item.reason for item in report.protected} == {"output of the network"}
    assert (model.width, model.head.in_features) == (4, 4)
    torch.testing.assert_close(model(X), masked_copy(dense, report.removed)(X), rtol=1e-9, atol=1e-9)


def test_a_state_that_one_frame_alone_shows_keeps_its_width() -> None:
    torch.manual_seed(0)
    model = ConvLSTM().double()
    dense = copy.deepcopy(model)
    with pytest.warns(gsprune.PruneWarning, match="cell"):
        report = gsprune.prune_step(model, 0.5, example_inputs=X[:, :1])
    assert (model.width, model.cell.in_channels, model.head.in_features) == (8, model.encoder.out_channels + 8, 8)
    torch.testing.assert_close(model(X), masked_copy(dense, report.removed)(X), rtol=1e-9, atol=1e-9)


class Padded(nn.Module):
    """Features filled up with channels of the code's own, which meet another layer's."""

    def __init__(self, varied: bool) -> None:
        super().__init__()
        self.varied = varied
        self.extra = 4
        self.narrow, self.wide, self.head = nn.Linear(3, 8), nn.Linear(3, 12), nn.Linear(12, 2)

    def forward(self, x: Tensor) -> Tensor:
        a = self.narrow(x)
        extra = torch.arange(self.extra).repeat(len(a), 1) if self.varied else torch.zeros(len(a), 4)
        return self.head(torch.cat([a, extra], -1) + self.wide(x))


@pytest.mark.parametrize("varied", [False, True])
def test_constants_that_differ_by_channel_or_have_a_size_in_the_code_keep_theirs(varied: bool) -> None:
    graph, _ = trace(Padded(varied), torch.randn(2, 3))
    assert "aten.add with channels of fixed number" in {item.reason for item in graph.protected}
