"""Heads that shrink keep the scale of their attention, step after step and in followers."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from affine_norms import affine_norms
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


class Blocked(Attention):
    """Tokens in two blocks: torch has no fused attention for five axes, and multiplies by the scale as by a number."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(16)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (layer(x).unflatten(-1, (2, -1)).transpose(2, 3) for layer in (self.q, self.k, self.v))
        return self.head(self.norm(F.scaled_dot_product_attention(q, k, v).transpose(2, 3).flatten(3)))


def test_heads_shrink_where_torch_takes_its_attention_apart() -> None:
    torch.manual_seed(0)
    model, x = Blocked().double(), torch.randn(2, 2, 5, 6, dtype=torch.float64)
    dense = copy.deepcopy(model)
    report = gsprune.prune_step(model, 0.5, example_inputs=x)
    assert model.q.out_features == 8, str(report)
    with affine_norms():
        torch.testing.assert_close(model(x), masked_copy(dense, report.removed)(x), rtol=1e-12, atol=1e-12)


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


OPTIMIZERS: dict[str, Callable[..., torch.optim.Optimizer]] = {
    "sgd": lambda p: torch.optim.SGD(p, 0.1, momentum=0.9),
    "adam": lambda p: torch.optim.Adam(p, 0.1),
    "amsgrad": lambda p: torch.optim.AdamW(p, 0.1, amsgrad=True),
    "nadam": lambda p: torch.optim.NAdam(p, 0.1),
    "radam": lambda p: torch.optim.RAdam(p, 0.1),
    "adamax": lambda p: torch.optim.Adamax(p, 0.1),
    "adagrad": lambda p: torch.optim.Adagrad(p, 0.1),
    "adadelta": lambda p: torch.optim.Adadelta(p, 0.1),
    "rmsprop": lambda p: torch.optim.RMSprop(p, 0.1, momentum=0.9, centered=True),
    "rprop": lambda p: torch.optim.Rprop(p, 0.1),
    "adafactor": lambda p: torch.optim.Adafactor(p, 0.1),
}


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_moments_are_those_that_gradients_of_the_scaled_rows_would_have_left(name: str) -> None:
    model, x = fresh()
    model(x).mul(100).square().sum().backward()  # large beside the epsilons
    optimizer = OPTIMIZERS[name](model.parameters())
    optimizer.step()
    gsprune.prune_step(model, 0.5, optimizer=optimizer, example_inputs=x)
    twin = nn.Parameter(model.q.weight.detach().clone())
    assert model.q.weight.grad is not None
    twin.grad = model.q.weight.grad.clone()
    expected = OPTIMIZERS[name]([twin])
    expected.step()
    compared = 0
    for key, value in expected.state[twin].items():
        if torch.is_tensor(value) and value.numel() > 1 and key != "col_var":  # a mean over rows of both scales
            got = optimizer.state[model.q.weight][key]
            torch.testing.assert_close(got, value, rtol=1e-3, atol=1e-12)  # Adadelta's epsilon has no scale
            compared += 1
    assert compared
