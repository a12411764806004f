"""Rescaling to a norm, and axes that are repeated to the width of what they meet."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from masked_networks import masked_copy
from torch import Tensor, nn

import gsprune
from gsprune.tracing import trace


class Between(nn.Module):
    """A function of a hidden layer, and of the network."""

    def __init__(self, function: Callable[[Between, Tensor], Tensor]) -> None:
        super().__init__()
        self.first, self.head, self.width, self.function = nn.Linear(5, 8), nn.Linear(8, 2), 8, function

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.function(self, self.first(x)))


@pytest.mark.parametrize(
    "function",
    [
        lambda net, x: x * x.sum(-1, keepdim=True).repeat(1, net.width),
        lambda net, x: x * x.sum(-1, keepdim=True).repeat(1, x.shape[-1]),
        lambda net, x: x + torch.tile(x.sum(1, keepdim=True).sigmoid() - 1, (1, net.width)) * x,
        lambda net, x: x.renorm(2, 0, 0.5),
        lambda net, x: x.renorm(p=1, dim=1, maxnorm=0.5),
        lambda net, x: x * F.linear(x, net.head.weight.renorm(2, 0, 0.1)).sum(-1, keepdim=True),
    ],
)
@pytest.mark.parametrize("sparsity", [0.25, 0.5])
def test_the_channels_shrink_exactly(function: Callable[[Between, Tensor], Tensor], sparsity: float) -> None:
    torch.manual_seed(0)
    model, x = Between(function).double(), torch.randn(4, 5, dtype=torch.float64)
    dense = copy.deepcopy(model)
    report = gsprune.prune_step(model, sparsity, example_inputs=x)
    assert (model.first.out_features, model.head.in_features) == (8 * (1 - sparsity), 8 * (1 - sparsity))
    torch.testing.assert_close(model(x), masked_copy(dense, report.removed)(x), rtol=1e-9, atol=1e-9)


def test_a_norm_over_channels_is_listed_as_inexact() -> None:
    assert trace(Between(lambda net, x: x.renorm(2, 0, 0.5)), torch.randn(4, 5))[0].inexact == ("aten.renorm",)
    assert trace(Between(lambda net, x: x.renorm(2, 1, 0.5)), torch.randn(4, 5))[0].inexact == ()
