"""Heads that shrink keep the scale of their attention, step after step and in followers."""

from __future__ import annotations

import copy

import torch
import torch.nn.functional as F
from masked_networks import masked_copy
from torch import Tensor, nn

import gsprune


class Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.q, self.k, self.v = nn.Linear(6, 16), nn.Linear(6, 16), nn.Linear(6, 16)
        self.head = nn.Linear(16, 3)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (layer(x).unflatten(-1, (2, -1)).transpose(1, 2) for layer in (self.q, self.k, self.v))
        return self.head(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))


def fresh() -> tuple[Attention, Tensor]:
    torch.manual_seed(0)
    return Attention().double(), torch.randn(2, 5, 6, dtype=torch.float64)


def test_outputs_equal_the_masked_network_s_after_every_step() -> None:
    model, x = fresh()
    for sparsity in (0.25, 0.5, 0.75):
        before = copy.deepcopy(model)
        report = gsprune.prune_step(model, sparsity, example_inputs=x)
        torch.testing.assert_close(model(x), masked_copy(before, report.removed)(x), rtol=1e-12, atol=1e-12)
    assert model.q.out_features == 4


def test_followers_are_scaled_along() -> None:
    model, x = fresh()
    target = copy.deepcopy(model)
    gsprune.prune_step(model, 0.5, example_inputs=x, followers=[target])
    for name, parameter in model.named_parameters():
        assert torch.equal(parameter, dict(target.named_parameters())[name])


def test_gradients_are_those_of_the_scaled_rows() -> None:
    model, x = fresh()
    model(x).square().sum().backward()
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    products = {name: before[name] * parameter.grad for name, parameter in model.named_parameters()}
    report = gsprune.prune_step(model, 0.5, example_inputs=x)
    kept = [row for row in range(16) if row not in report.removed["q.weight"][0].tolist()]
    assert model.q.weight.grad is not None
    torch.testing.assert_close(model.q.weight * model.q.weight.grad, products["q.weight"][kept])
    torch.testing.assert_close(model.q.weight, before["q.weight"][kept] * 0.5**0.5)
