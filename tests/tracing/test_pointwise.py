"""Element-wise operations, whatever torch tags them as: half of the channels go, and the rest is exact."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from between import Between
from masked_networks import prune_half
from torch import Tensor, nn

X = torch.randn(4, 6, dtype=torch.float64)


class Energy(nn.Module):
    """An energy and its forces: the gradient is part of the forward."""

    def __init__(self, activation: type[nn.Module]) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(6, 8), activation(), nn.Linear(8, 6), activation(), nn.Linear(6, 1))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        with torch.enable_grad():
            x = x.detach().requires_grad_(True)
            energy = self.net(x)
            (gradient,) = torch.autograd.grad(energy.sum(), x, create_graph=True)
        return energy, -gradient


@pytest.mark.parametrize(
    "function",
    [
        nn.Mish(inplace=True),
        nn.Threshold(0.1, 0.0, inplace=True),
        lambda x: x.clone().abs_(),
        lambda x: x.clone().copysign_(x.cos()),
        lambda x: torch.ops.aten.gelu_(x.clone()),
        lambda x: x.clone().gt_(0.2),
        lambda x: x.clone().floor_divide_(0.3),
    ],
)
def test_operations_in_place_are_pointwise_if_their_other_form_is(function: Callable[[Tensor], Tensor]) -> None:
    model = Between(function).double()
    assert prune_half(model, X) < 1e-12
    assert model.first.out_features == 4


@pytest.mark.parametrize(
    "activation",
    [
        *(nn.Softplus, nn.ELU, nn.SELU, nn.CELU, nn.LeakyReLU, nn.Hardtanh, nn.ReLU6, nn.Hardswish, nn.LogSigmoid),
        *(nn.Hardsigmoid, nn.Softshrink, nn.Hardshrink),
    ],
)
def test_gradients_of_activations_are_pointwise(activation: type[nn.Module]) -> None:
    model = Energy(activation).double()
    assert prune_half(model, X) < 1e-12
    assert (model.net[0].out_features, model.net[2].out_features) == (4, 3)
