"""What is written into a part of a tensor is known of the whole, and of views made before."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from masked_networks import masked_copy
from torch import Tensor, nn

import gsprune

Body = Callable[[Tensor, Tensor], Tensor]


class TwoBranches(nn.Module):
    """Two convolutions from the input, joined by `body`."""

    def __init__(self, body: Body) -> None:
        super().__init__()
        self.left, self.right, self.head = nn.Conv2d(3, 8, 1), nn.Conv2d(3, 8, 1), nn.LazyConv2d(2, 1)
        self.body = body

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.body(self.left(x), self.right(x)))


def halves(a: Tensor, b: Tensor) -> Tensor:
    y = torch.empty_like(a)
    y[:, :, :2] = a[:, :, :2]
    y[:, :, 2:] = b[:, :, 2:]
    return y


def a_view_made_before(a: Tensor, b: Tensor) -> Tensor:
    y = a.new_zeros(a.shape)
    first = y[:, :, :1]
    y.copy_(a)
    return b * first


def a_whole_view_made_before(a: Tensor, b: Tensor) -> Tensor:
    y = torch.zeros_like(a)
    same = y[:]
    y[:, :, 1:] = a[:, :, 1:]
    return b * same


def a_constant_with_numbers_in_it(a: Tensor, b: Tensor) -> Tensor:
    mask = torch.ones_like(a)
    mask[:, :, 0] = 0.5
    mask[:, :, 1].fill_(2.0)
    return a * mask + b * mask[:, :, :1]


def channels_last_in_memory(a: Tensor, b: Tensor) -> Tensor:
    y = a.new_empty(a.shape[0], *a.shape[2:], a.shape[1]).permute(0, 3, 1, 2)
    y[:, :, :3] = a[:, :, :3]
    y[:, :, 3:] = b[:, :, 3:]
    return y


def circular(a: Tensor, b: Tensor) -> Tensor:
    return nn.functional.pad(a, (1, 2, 1, 0), mode="circular")[:, :, :4, :4] * b


@pytest.mark.parametrize(
    "body",
    [
        *[halves, a_view_made_before, a_whole_view_made_before, a_constant_with_numbers_in_it],
        *[channels_last_in_memory, circular],
    ],
)
def test_pieces_of_all_channels_tie_them_and_all_can_be_pruned(body: Body) -> None:
    torch.manual_seed(0)
    x = torch.randn(2, 3, 4, 4)
    net = TwoBranches(body)
    net(x)
    net = net.double()
    (group,) = gsprune.trace(net, x.double()).groups
    assert {member.tensor for member in group.members if member.role == "out"} >= {"left.weight", "right.weight"}
    dense, report = net, gsprune.prune_step(net, 0.0, example_inputs=x.double())
    net = masked_copy(net, {})
    report = gsprune.prune_step(net, 0.5, example_inputs=x.double())
    assert (net.left.out_channels, net.right.out_channels) == (4, 4)
    torch.testing.assert_close(net(x.double()), masked_copy(dense, report.removed)(x.double()))


def parts_of_channels(a: Tensor, b: Tensor) -> Tensor:
    y = a.new_empty(a.shape[0], a.shape[1] + b.shape[1], *a.shape[2:])
    y[:, : a.shape[1]] = a
    y[:, a.shape[1] :] = b
    return y


def next_to_each_other(a: Tensor, b: Tensor) -> Tensor:
    y = a.new_empty(*a.shape[:2], 2, *a.shape[2:]).flatten(1, 2)
    y[:, ::2] = a
    y[:, 1::2] = b
    return y


@pytest.mark.parametrize("body", [parts_of_channels, next_to_each_other])
def test_channels_that_span_no_axis_of_the_whole_are_protected(body: Body) -> None:
    x = torch.randn(2, 3, 4, 4)
    net = TwoBranches(body)
    net(x)
    protected = {name for held in gsprune.trace(net, x).protected for name in held.names}
    assert "left" in protected
