"""Convolutions with a kernel of size 1 along channels, and with kernels that the forward makes."""

from __future__ import annotations

import pytest
import torch
from masked_networks import prune_half
from torch import Tensor, nn

import gsprune


class TokenMixer(nn.Module):
    """MLP-Mixer with convolutions over patches (batch, patches, width): the width is a spatial axis of these."""

    def __init__(self, mix: nn.Module, back: nn.Module) -> None:
        super().__init__()
        self.embed, self.mix, self.back, self.head = nn.Linear(5, 8), mix, back, nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        y = self.embed(x)
        return self.head(y + self.back(torch.tanh(self.mix(y))))


@pytest.mark.parametrize(
    ("mix", "back"),
    [
        (nn.Conv1d(6, 10, 1), nn.Conv1d(10, 6, 1)),
        (nn.ConvTranspose1d(6, 10, 1), nn.ConvTranspose1d(10, 6, 1)),
        (nn.Conv1d(6, 6, 1, groups=6), nn.Conv1d(6, 6, 1, groups=2, padding="same")),
    ],
)
def test_kernels_of_size_one_mix_no_positions(mix: nn.Module, back: nn.Module) -> None:
    model = TokenMixer(mix, back).double()
    assert prune_half(model, torch.randn(2, 6, 5).double()) < 1e-12
    assert model.embed.out_features == 4
    assert not isinstance(mix, nn.Conv1d) or mix.groups > 1 or mix.out_channels == 5


def test_a_kernel_mixes_only_the_axes_along_which_it_is_longer_than_one() -> None:
    class Bands(nn.Module):
        def __init__(self, kernel: tuple[int, int]) -> None:
            super().__init__()
            self.bands, self.head = nn.Linear(5, 8), nn.Linear(8, 3)
            self.conv = nn.Conv2d(2, 2, kernel)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(self.conv(self.bands(x)))

    model, x = Bands((3, 1)).double(), torch.randn(2, 2, 7, 5).double()
    assert prune_half(model, x) < 1e-12
    assert model.bands.out_features == 4
    model = Bands((1, 3)).double()
    model.head = nn.Linear(6, 3).double()
    assert "bands" not in [group.name for group in gsprune.trace(model, x).groups]


@pytest.mark.parametrize("mix", [nn.Conv1d(6, 6, 1, padding=1), nn.Conv1d(6, 6, 1, stride=2), nn.Conv1d(6, 6, 3)])
def test_kernels_that_pad_skip_or_mix_channels_protect_them(mix: nn.Module) -> None:
    model = nn.Sequential(nn.Linear(5, 8), mix, nn.LazyLinear(3))
    model(torch.randn(2, 6, 5))
    (first, *_) = gsprune.trace(model, torch.randn(2, 6, 5)).protected
    assert (first.names, first.reason) == (("0",), "aten.convolution mixes positions")
