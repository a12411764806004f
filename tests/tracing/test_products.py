"""Products that are no layers: bilinear ones, matrices that a hypernetwork makes, outer products of heads."""

from __future__ import annotations

import pytest
import torch
from masked_networks import prune_half
from torch import Tensor, nn

import gsprune


class Scores(nn.Module):
    """A bilinear product of two projections, or of one with itself."""

    def __init__(self, is_same: bool) -> None:
        super().__init__()
        self.left, self.right, self.is_same = nn.Linear(3, 8), nn.Linear(5, 6), is_same
        self.product, self.head = nn.Bilinear(8, 8 if is_same else 6, 10), nn.Linear(10, 2)

    def forward(self, x: Tensor, z: Tensor) -> Tensor:
        left, right = self.left(x).tanh(), self.right(z)
        return self.head(self.product(left, left if self.is_same else right).relu()) + right.sum()


@pytest.mark.parametrize("is_same", [False, True])
@pytest.mark.parametrize("positions", [(), (7,)])
def test_bilinear_layers_are_pruned_along_all_axes(is_same: bool, positions: tuple[int, ...]) -> None:
    model = Scores(is_same).double()
    assert prune_half(model, torch.randn(4, *positions, 3).double(), torch.randn(4, *positions, 5).double()) < 1e-12
    assert model.product.weight.shape == (5, 4, 4 if is_same else 3)
    assert (model.product.in1_features, model.product.out_features) == (4, 5)


class Mixer(nn.Module):
    """QMIX: the state makes a matrix (agents, width), which the agents' values multiply."""

    def __init__(self, is_transposed: bool) -> None:
        super().__init__()
        self.agents, self.width, self.is_transposed = 3, 12, is_transposed
        self.first, self.last, self.shift = nn.Linear(8, 36), nn.Linear(8, 12), nn.Linear(8, 12)

    def forward(self, values: Tensor, state: Tensor) -> Tensor:
        matrix = self.first(state).abs().view(-1, self.agents, self.width)
        if self.is_transposed:
            hidden = torch.bmm(matrix.mT, values.unsqueeze(2)).mT
        else:
            hidden = torch.bmm(values.unsqueeze(1), matrix)
        hidden = torch.relu(hidden + self.shift(state).unsqueeze(1))
        return torch.bmm(hidden, self.last(state).abs().view(-1, self.width, 1)).squeeze()


@pytest.mark.parametrize("is_transposed", [False, True])
def test_a_matrix_made_for_a_fixed_number_of_inputs_is_pruned_along_its_other_axis(is_transposed: bool) -> None:
    model = Mixer(is_transposed).double()
    assert prune_half(model, torch.randn(5, 3).double(), torch.randn(5, 8).double()) < 1e-12
    assert (model.first.out_features, model.last.out_features, model.shift.out_features) == (18, 6, 6)


class LinearAttention(nn.Module):
    """A recurrent state (keys, values) per head: the sum of outer products."""

    def __init__(self, with_einsum: bool) -> None:
        super().__init__()
        self.heads, self.with_einsum = 2, with_einsum
        self.q, self.k, self.v = nn.Linear(6, 8), nn.Linear(6, 8), nn.Linear(6, 12)
        self.out = nn.Linear(12, 6)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (layer(x).unflatten(-1, (self.heads, -1)) for layer in (self.q, self.k, self.v))
        state, outputs = torch.zeros(()).to(x), []
        for step in range(x.shape[1]):
            if self.with_einsum:
                state = state + torch.einsum("nhk,nhv->nhkv", k[:, step], v[:, step])
            else:
                state = state + k[:, step].unsqueeze(-1) * v[:, step].unsqueeze(-2)
            outputs.append(torch.einsum("nhk,nhkv->nhv", q[:, step], state))
        return self.out(torch.stack(outputs, 1).flatten(2))


@pytest.mark.parametrize("with_einsum", [False, True])
def test_heads_stay_in_outer_products_and_queries_and_values_have_their_own_widths(with_einsum: bool) -> None:
    model, x = LinearAttention(with_einsum).double(), torch.randn(3, 4, 6).double()
    assert [(group.num_units, group.layers("out")) for group in gsprune.trace(model, x).groups] == [
        (4, ["q", "k"]),
        (6, ["v"]),
    ]
    assert prune_half(model, x) < 1e-12
    assert (model.q.out_features, model.k.out_features, model.v.out_features) == (4, 4, 6)


class SeparableMaps(nn.Module):
    """Channels of an outer product over positions: the code places them on the axis that both factors have."""

    def __init__(self) -> None:
        super().__init__()
        self.rows, self.columns, self.head = nn.Linear(5, 32), nn.Linear(5, 32), nn.Conv2d(8, 3, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.rows(x).view(len(x), -1, 4, 1) * self.columns(x).view(len(x), -1, 1, 4))


def test_channels_that_both_factors_of_an_outer_product_have_are_pruned() -> None:
    model = SeparableMaps().double()
    assert prune_half(model, torch.randn(2, 5).double()) < 1e-12
    assert (model.rows.out_features, model.head.in_channels) == (16, 4)


class Rows(nn.Module):
    """The sum over channels that a linear layer on transposed tensors carries over, filled by its bias."""

    def __init__(self, bias: bool) -> None:
        super().__init__()
        self.first, self.mix = nn.Linear(5, 8), nn.Linear(4, 6, bias=bias)
        self.head, self.other = nn.Linear(6, 3), nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        y = torch.tanh(self.first(x))
        return self.head(self.mix(y.mT).sum(1)) + self.other(y).mean(1)


@pytest.mark.parametrize("bias", [False, True])
def test_sums_over_channels_that_a_bias_fills_are_inexact(bias: bool) -> None:
    model, x = Rows(bias).double(), torch.randn(2, 4, 5).double()
    assert gsprune.trace(model, x).inexact == (("aten.sum",) if bias else ())
    gap = prune_half(model, x)
    assert model.first.out_features == 4
    assert bias or gap < 1e-12
