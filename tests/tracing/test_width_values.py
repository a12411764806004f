"""Values that a forward computes from a width: kept channels keep theirs, or the group is protected."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from masked_networks import masked_copy
from torch import Tensor, nn

import gsprune

Function = Callable[[Tensor], Tensor]
X = torch.randn(5, 10, dtype=torch.float64)


class Between(nn.Module):
    """A function of 16 channels, between two layers; an exempt norm behind it, on request."""

    def __init__(self, function: Function, norm: bool = False) -> None:
        super().__init__()
        self.function = function
        self.first, self.second, self.last = nn.Linear(10, 16), nn.Linear(16, 12), nn.Linear(12, 3)
        self.norm = nn.LayerNorm(16) if norm else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return self.last(torch.relu(self.second(self.norm(self.function(self.first(x))))))


def pruned(function: Function, norm: bool) -> tuple[Between, Between, gsprune.PruneReport]:
    """The pruned network, the masked one, and the report."""
    torch.manual_seed(0)
    model = Between(function, norm).double()
    dense = copy.deepcopy(model)
    report = gsprune.prune_step(model, 0.5, example_inputs=X)
    return model, masked_copy(dense, report.removed), report


def half_sines(h: Tensor) -> Tensor:
    """A position code that is filled in place, half by half."""
    width = h.shape[-1]
    angles = torch.exp(-torch.arange(0, width, 2, dtype=h.dtype) * math.log(10000.0) / width)
    code = torch.zeros(1, width, dtype=h.dtype)
    code[:, 0::2], code[:, 1::2] = angles.sin(), angles.cos()
    return h + code


def expanded(h: Tensor) -> Tensor:
    """The code of a time that is computed from the input, for as many channels."""
    times = h.detach().mean(1, keepdim=True) * 0 + 2.0
    return h + (times * torch.linspace(0, 1, h.shape[1], dtype=h.dtype)).sin()


POSITIONS = [
    lambda h: h * (1 + torch.arange(h.shape[-1]) / h.shape[-1]),
    lambda h: h + torch.linspace(0, 1, h.size(1)),
    lambda h: torch.tanh(h) * 0.9 ** torch.arange(h.shape[1]),
    lambda h: torch.where(torch.arange(h.shape[1]) % 2 == 0, h, -h),
    lambda h: h.masked_fill(torch.arange(h.shape[1]) > 4, 0.0),
    lambda h: h.mul_(torch.arange(h.shape[1])),
    lambda h: h + torch.zeros(h.shape[1]).copy_(torch.arange(h.shape[1])),
    lambda h: h * (1 + (h @ torch.linspace(0, 1, h.shape[1], dtype=h.dtype))[:, None]),
    lambda h: h * (h @ torch.arange(h.shape[1] * 3.0, dtype=h.dtype).view(-1, 3)).mean(1, keepdim=True),
    half_sines,
    expanded,
]


@pytest.mark.parametrize("norm", [False, True])
@pytest.mark.parametrize("function", POSITIONS)
def test_values_that_go_by_positions_keep_the_channels_they_meet(function: Function, norm: bool) -> None:
    model, masked, report = pruned(function, norm)
    assert (model.first.out_features, model.second.out_features) == (16, 6)
    assert any("first" in item.names for item in report.protected)
    torch.testing.assert_close(model(X), masked(X), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(
    "function",
    [
        lambda h: h + torch.zeros(h.shape[1]),
        lambda h: h * torch.full_like(h, 0.5),
        lambda h: torch.empty(h.shape[1], dtype=h.dtype).copy_(torch.ones(h.shape[1])) * h,
        lambda h: h * torch.arange(1.0, 6.0)[:, None],
        lambda h: h + 0 * torch.randn(h.shape[1]) * 2,
        lambda h: torch.zeros_like(h).add_(h),
    ],
)
def test_constants_of_any_width_and_noise_cost_no_pruning(function: Function) -> None:
    model, masked, _ = pruned(function, norm=False)
    assert (model.first.out_features, model.second.out_features) == (8, 6)
    torch.testing.assert_close(model(X), masked(X), rtol=1e-9, atol=1e-9)


def row_products(h: Tensor) -> Tensor:
    """Attention over rows, written by hand."""
    return (h * torch.tanh(h)).sum(-1, keepdim=True)


NUMBERS = [
    lambda h: torch.tanh(h) / h.shape[1],
    lambda h: torch.tanh(h) * (1 / h.size(-1)),
    lambda h: torch.tanh(h) * h.shape[1] ** -0.25,
    lambda h: torch.sigmoid(h) ** (2 / math.log2(h.shape[1])),
    lambda h: torch.relu(h - 0.1 * len(h.T)),
    lambda h: torch.tanh(h) / torch.tensor(float(h.shape[1])).sqrt(),
    lambda h: torch.tanh(h) * torch.full((h.shape[1],), 1 / h.shape[1]),
    lambda h: torch.tanh(h).div_(h[0].numel()),
    lambda h: h * row_products(h) / math.sqrt(h.shape[1]),
    lambda h: h * (row_products(h) * h.shape[1] ** -0.5),
    lambda h: h * (row_products(h).squeeze(1) / (h.shape[1] - 1)).unsqueeze(1),
    lambda h: h * (torch.einsum("bd,bd->b", h, torch.tanh(h)) / h.shape[1] ** 0.5)[:, None],
    lambda h: h * ((torch.tanh(h) @ h.T) / math.sqrt(h.shape[1])).sum(1, keepdim=True),
    # Numbers of other pointwise operations, by position, by name, and in tensors.
    lambda h: F.leaky_relu(h, 1 / h.shape[1]),
    lambda h: h.clamp(max=h.shape[1] ** -0.5),
    lambda h: F.softplus(h, beta=h.shape[1] / 12),
    lambda h: torch.lerp(h, h.relu(), 1 / h.shape[1]),
    lambda h: torch.where(h > 0, h, 1 / h.shape[1]),
    lambda h: h.masked_fill(h > 0.1, 12.0 / h.shape[1]),
    lambda h: torch.addcmul(h, h, h, value=1 / h.shape[1]),
    lambda h: torch.add(h, h.relu(), alpha=1 / h.shape[1]),
    lambda h: (
        h
        * torch.baddbmm(torch.zeros(1, 1, 1, dtype=h.dtype), h[None], h.T[None], alpha=1 / h.shape[1])[0].sum(
            1, keepdim=True
        )
    ),
    # A product of activations over their number, which is no scale of attention.
    lambda h: h * ((torch.tanh(h) @ h.T) / h.shape[1]).sum(1, keepdim=True),
    # Behind operations that read values: the comparison of numbers goes on.
    lambda h: torch.tanh(h) / h.shape[1] if bool(h.isfinite().all()) else h,
    lambda h: torch.tanh(h)[torch.arange(len(h))] / h.shape[1],
    lambda h: torch.tanh(h)[torch.ones(len(h)) > 0] / h.shape[1],
]


@pytest.mark.parametrize("norm", [False, True])
@pytest.mark.parametrize("function", NUMBERS)
def test_channels_whose_number_becomes_a_value_are_kept_and_the_rest_is_pruned(function: Function, norm: bool) -> None:
    model, masked, report = pruned(function, norm)
    assert (model.first.out_features, model.second.out_features) == (16, 6)
    assert any("first" in item.names and "from" in item.reason for item in report.protected)
    torch.testing.assert_close(model(X), masked(X), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(
    "function",
    [
        lambda h: h * (h.sum(1, keepdim=True) / h.shape[1]),
        lambda h: h * (h.sum(1).unsqueeze(1) * (1 / h.shape[1])),
        lambda h: h * (h.pow(2).sum(1, keepdim=True) / h.shape[1] + 1e-6).rsqrt(),
        lambda h: h * (h.sum() / h.numel()),
    ],
)
def test_a_sum_over_channels_divided_by_their_number_is_a_mean(function: Function) -> None:
    graph = gsprune.trace(Between(function).double(), X)
    assert [group.name for group in graph.groups] == ["first", "second"]
    assert "aten.div" in graph.inexact or "aten.mul" in graph.inexact


class EqualizedRate(Between):
    """The weight is divided by the root of its inputs' number at every call."""

    def forward(self, x: Tensor) -> Tensor:
        h = self.norm(self.first(x))
        return self.last(F.linear(h, self.second.weight / math.sqrt(self.second.weight.shape[1])).relu())


def test_a_weight_that_is_scaled_by_its_width_makes_up_for_it() -> None:
    torch.manual_seed(0)
    model = EqualizedRate(nn.Identity()).double()
    dense = copy.deepcopy(model)
    report = gsprune.prune_step(model, 0.5, example_inputs=X)
    assert model.first.out_features == 8
    torch.testing.assert_close(model(X), masked_copy(dense, report.removed)(X), rtol=1e-9, atol=1e-9)


class Critic(nn.Module):
    """A contrastive critic: products of states and goals over the root of their width, behind an exempt norm."""

    def __init__(self, rows: bool) -> None:
        super().__init__()
        self.states, self.goals, self.rows = nn.Linear(10, 16), nn.Linear(10, 16), rows
        self.norm = nn.LayerNorm(16)

    def forward(self, x: Tensor) -> Tensor:
        phi, psi = self.norm(self.states(x)), self.goals(x.flip(0))
        logits = (phi * psi).sum(-1) if self.rows else phi @ psi.T
        return logits / math.sqrt(phi.shape[-1])


@pytest.mark.parametrize("rows", [False, True])
def test_a_critic_that_divides_by_the_root_of_its_width_keeps_it(rows: bool) -> None:
    torch.manual_seed(0)
    model = Critic(rows).double()
    expected = model(X)
    with pytest.warns(gsprune.PruneWarning, match="can be removed"):
        gsprune.prune_step(model, 0.5, example_inputs=X)
    torch.testing.assert_close(model(X), expected, rtol=0, atol=0)


class Stored(nn.Module):
    """The width is stored, and adjusted where a view asks for it: numbers computed from it are noticed then."""

    def __init__(self) -> None:
        super().__init__()
        self.width = 16
        self.first, self.norm, self.second, self.last = (
            nn.Linear(10, 16),
            nn.LayerNorm(16),
            nn.Linear(16, 12),
            nn.Linear(12, 3),
        )

    def forward(self, x: Tensor) -> Tensor:
        h = self.norm(torch.tanh(self.first(x).view(len(x), self.width)) / self.width)
        return self.last(torch.relu(self.second(h)))


def test_a_stored_width_that_becomes_a_value_is_kept() -> None:
    torch.manual_seed(0)
    model = Stored().double()
    dense = copy.deepcopy(model)
    report = gsprune.prune_step(model, 0.5, example_inputs=X)
    assert (model.width, model.first.out_features, model.second.out_features) == (16, 16, 6)
    torch.testing.assert_close(model(X), masked_copy(dense, report.removed)(X), rtol=1e-9, atol=1e-9)
