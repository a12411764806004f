"""Values that a forward computes from a width: kept channels keep theirs, or the group is protected."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable

import pytest
import torch
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
