"""Convolutions with a kernel of size 1 along channels, and with kernels that the forward makes."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
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


class Filtered(nn.Module):
    """A depthwise convolution with a kernel made from a stored one (2, 1, 3, 3) and the number of channels."""

    def __init__(self, kernel: Callable[[Tensor, int], Tensor]) -> None:
        super().__init__()
        self.first, self.kernel, self.last = nn.Conv2d(3, 8, 3), kernel, nn.LazyConv2d(3, 1)
        self.register_buffer("sobel", torch.randn(2, 1, 3, 3))

    def filtered(self, x: Tensor) -> Tensor:
        return F.conv2d(x, self.kernel(self.sobel, x.shape[1]).to(x), padding=1, groups=x.shape[1])

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.filtered(self.first(x).relu()))


class Upsampled(Filtered):
    def filtered(self, x: Tensor) -> Tensor:
        return F.conv_transpose2d(x, self.kernel(self.sobel, x.shape[1]).to(x), stride=2, groups=x.shape[1])


IMAGES = torch.randn(2, 3, 6, 6, dtype=torch.float64)
KERNELS = {
    "expanded": lambda k, c: k[:1].expand(c, -1, -1, -1),
    "repeated": lambda k, c: k[1:].repeat(c, 1, 1, 1),
    "made": lambda k, c: torch.ones(c, 1, 3, 3) / 9,
    "outer product": lambda k, c: torch.outer(torch.tensor([1.0, 2, 1]), torch.ones(3)).expand(c, 1, 3, 3),
    "reshaped": lambda k, c: k[:1].expand(-1, c, -1, -1).reshape(-1, 1, 3, 3),
}


@pytest.mark.parametrize("network", [Filtered, Upsampled])
@pytest.mark.parametrize("kernel", KERNELS)
def test_one_kernel_for_all_channels_leaves_them_free(network: type[Filtered], kernel: str) -> None:
    model = network(KERNELS[kernel]).double()
    model(IMAGES)
    assert prune_half(model, IMAGES) < 1e-12
    assert (model.first.out_channels, model.sobel.shape) == (4, (2, 1, 3, 3))


def test_several_kernels_for_every_channel_make_that_many_channels() -> None:
    model = Filtered(lambda k, c: k.repeat(c, 1, 1, 1)).double()
    model(IMAGES)
    assert prune_half(model, IMAGES) < 1e-12
    assert (model.first.out_channels, model.last.in_channels) == (4, 8)


@pytest.mark.parametrize(
    ("kernel", "reason"),
    [
        (lambda k, c: torch.arange(c * 9.0).view(c, 1, 3, 3), "values computed from the channels' positions"),
        (lambda k, c: torch.ones(8, 1, 3, 3), "sizes written into the code"),
        (lambda k, c: torch.cat([k[:1], torch.zeros(7, 1, 3, 3).to(k)]), "with a tensor of fixed size"),
    ],
)
def test_kernels_that_differ_by_channel_or_have_a_fixed_number_protect_the_channels(
    kernel: Callable[[Tensor, int], Tensor], reason: str
) -> None:
    model = Filtered(kernel).double()
    model(IMAGES)
    with pytest.warns(gsprune.errors.PruneWarning, match=reason):
        gsprune.prune_step(model, 0.5, example_inputs=IMAGES)
    assert model.first.out_channels == 8
