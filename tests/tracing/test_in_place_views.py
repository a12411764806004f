"""Views in place (``squeeze_``) change the shape of their argument, whose channels stay the same."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from between import Between
from masked_networks import masked_copy
from torch import Tensor, nn

import gsprune

X = torch.randn(4, 5, 6, dtype=torch.float64)
TO_THE_SAME_SHAPE: list[Callable[[Tensor], Tensor]] = [
    lambda h: h.unsqueeze(1).squeeze_(1),
    lambda h: h.unsqueeze(1).unsqueeze(0).squeeze_(),
    lambda h: h.unsqueeze_(2).squeeze_(-2),
    lambda h: h.transpose_(0, 2).tanh().swapdims_(2, 0),
]


def assert_exact(model: Between, forward: Callable[[nn.Module, Tensor], Tensor]) -> None:
    dense = masked_copy(model, {})
    report = gsprune.prune_step(model, 0.5, example_inputs=X, forward=forward)
    assert model.first.out_features == 4
    torch.testing.assert_close(forward(model, 2 * X), forward(masked_copy(dense, report.removed), 2 * X))


@pytest.mark.parametrize("function", TO_THE_SAME_SHAPE)
def test_channels_are_followed_through_views_in_place(function: Callable[[Tensor], Tensor]) -> None:
    assert_exact(Between(function).double(), lambda m, x: m(x))


def test_a_call_under_vmap_is_followed() -> None:
    assert_exact(Between(torch.tanh).double(), lambda m, x: torch.func.vmap(torch.func.vmap(m))(x))


def test_gradients_of_single_samples_are_traced() -> None:
    graph = gsprune.trace(Between(torch.tanh).double(), X[0], lambda m, x: torch.func.vmap(torch.func.jacrev(m))(x))
    assert [group.name for group in graph.groups] == ["first"]


def test_a_view_in_place_to_other_strides_protects_the_channels() -> None:
    model = Between(lambda h: h.as_strided_((3, h.shape[-1]), (h.shape[-1], 1))).double()
    assert gsprune.trace(model, X).groups == ()
