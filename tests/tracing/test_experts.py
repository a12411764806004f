"""Matrix products that use another weight for every group of rows."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
from masked_networks import masked_copy
from torch import Tensor, nn

import gsprune

Product = Callable[[Tensor, Tensor], Tensor]


class Experts(nn.Module):
    """Rows (12, 8) in three groups of four, each through a hidden layer of its own."""

    def __init__(self, product: Product) -> None:
        super().__init__()
        self.product = product
        self.first, self.head = nn.Linear(5, 8), nn.Linear(8, 2)
        self.up, self.down = nn.Parameter(torch.randn(3, 8, 16)), nn.Parameter(torch.randn(3, 16, 8))

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.product(self.first(x), self.up).relu()
        return self.head(self.product(hidden, self.down))


def grouped(x: Tensor, weights: Tensor) -> Tensor:
    return torch._grouped_mm(x, weights, offs=torch.tensor([4, 8, 12], dtype=torch.int32))


def batched(x: Tensor, weights: Tensor) -> Tensor:
    return torch.bmm(x.unflatten(0, (3, 4)), weights).flatten(0, 1)


def added(x: Tensor, weights: Tensor) -> Tensor:
    return torch.baddbmm(x.new_zeros(3, 1, weights.shape[-1]), x.unflatten(0, (3, 4)), weights).flatten(0, 1)


def summed(x: Tensor, weights: Tensor) -> Tensor:
    return torch.einsum("ecd,edf->ecf", x.unflatten(0, (3, 4)), weights).flatten(0, 1)


needs_grouped_mm = pytest.mark.skipif(not hasattr(torch, "_grouped_mm"), reason="this torch has no _grouped_mm")


@pytest.mark.parametrize("product", [pytest.param(grouped, marks=needs_grouped_mm), batched, added, summed])
def test_hidden_channels_of_all_experts_go_together_and_every_expert_stays(product: Product) -> None:
    torch.manual_seed(0)
    model, x = Experts(product), torch.randn(12, 5)
    dense = copy.deepcopy(model)
    report = gsprune.prune_step(model, 0.5, example_inputs=x)
    assert (tuple(model.up.shape), tuple(model.down.shape)) == ((3, 4, 8), (3, 8, 4))
    torch.testing.assert_close(model(x), masked_copy(dense, report.removed)(x), rtol=1e-4, atol=1e-4)


class Gated(nn.Module):
    """As many experts as the code says, behind a gate that has one output each."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.gate, self.head = nn.Linear(5, 8), nn.Linear(8, 3), nn.Linear(8, 2)
        self.up, self.down = nn.Parameter(torch.randn(3, 8, 12)), nn.Parameter(torch.randn(3, 12, 8))

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        y = torch.bmm(torch.bmm(x.expand(3, *x.shape), self.up).relu(), self.down)
        return self.head((self.gate(x).sigmoid().t()[..., None] * y).sum(0))


def test_a_number_of_experts_in_the_code_is_kept_and_not_an_error() -> None:
    torch.manual_seed(0)
    model, x = Gated().double(), torch.randn(4, 5, dtype=torch.float64)
    dense = copy.deepcopy(model)
    report = gsprune.prune_step(model, 0.5, example_inputs=x)
    assert report.changed
    assert (len(model.up), len(model.down), model.gate.out_features) == (3, 3, 3)
    assert "gate" in {name for item in report.protected for name in item.names}
    torch.testing.assert_close(model(x), masked_copy(dense, report.removed)(x), rtol=1e-9, atol=1e-9)
