"""Integers that torch's layers store follow their tensors."""

from __future__ import annotations

import copy

import pytest
import torch
from masked_networks import masked_copy
from torch import nn

import gsprune

# Name -> a convolution of 8 channels, and (in_channels, out_channels, groups) when half of every group is gone.
CONVOLUTIONS = {
    "depthwise": (lambda: nn.Conv2d(8, 8, 3, groups=8), (4, 4, 4)),
    "depthwise with a multiplier": (lambda: nn.Conv2d(8, 16, 3, groups=8), (4, 8, 4)),
    "grouped": (lambda: nn.Conv2d(8, 16, 3, groups=4), (4, 8, 4)),
    "transposed": (lambda: nn.ConvTranspose2d(8, 16, 3), (4, 8, 1)),
    "transposed depthwise": (lambda: nn.ConvTranspose2d(8, 8, 3, groups=8), (4, 4, 4)),
    "transposed depthwise with a multiplier": (lambda: nn.ConvTranspose2d(8, 16, 3, groups=8), (4, 8, 4)),
    "transposed grouped": (lambda: nn.ConvTranspose2d(8, 16, 3, groups=4), (4, 8, 4)),
    "transposed grouped, one output per group": (lambda: nn.ConvTranspose2d(8, 4, 3, groups=4), (4, 4, 4)),
}


@pytest.mark.parametrize("name", CONVOLUTIONS)
def test_the_integers_of_convolutions_follow_their_channels(name: str) -> None:
    torch.manual_seed(0)
    make, sizes = CONVOLUTIONS[name]
    conv = make()
    model = nn.Sequential(nn.Conv2d(3, 8, 1), conv, nn.Tanh(), nn.Conv2d(conv.out_channels, 2, 1)).double()
    x = torch.randn(2, 3, 5, 5, dtype=torch.float64)
    # After the first step, the grouped convolutions read one input per group.
    for group in gsprune.trace(model, x).groups:
        dense = copy.deepcopy(model)
        report = gsprune.prune_step(model, {group.name: 0.5}, example_inputs=x)
        torch.testing.assert_close(model(x), masked_copy(dense, report.removed)(x), rtol=1e-9, atol=1e-9)
        model = copy.deepcopy(model)  # the next step looks the integers up again
    assert (model[1].in_channels, model[1].out_channels, model[1].groups) == sizes
    assert (model[0].out_channels, model[3].in_channels) == sizes[:2]
