"""Functions of hidden channels that hold for any number of channels: half of these go, and the rest is exact."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from masked_networks import prune_half
from torch import Tensor, nn

import gsprune

Function = Callable[[Tensor], Tensor]


class Between(nn.Module):
    """A function of a hidden tensor (2, 8, 4, 4), between two layers."""

    def __init__(self, function: Function) -> None:
        super().__init__()
        self.first, self.function, self.last = nn.Conv2d(3, 8, 1), function, nn.LazyConv2d(2, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.function(self.first(x)))


def images(seed: int) -> Tensor:
    return torch.randn(2, 3, 4, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def assert_half_goes(function: Function) -> None:
    torch.manual_seed(0)
    model = Between(function).double()
    model(images(0))
    assert prune_half(model, images(0)) < 1e-12
    assert model.first.out_channels == 4


def rows(x: Tensor) -> Tensor:
    return torch.where(x.mean((1, 2, 3)) > -9)[0]


def add_rows(x: Tensor) -> Tensor:
    """The loop over experts of a mixture: rows of a tensor of zeros are added to."""
    y = torch.zeros_like(x)
    y[rows(x)] += 2 * x[rows(x)]
    return y


def put(x: Tensor, indices: tuple[Tensor | None, ...], value: Tensor) -> Tensor:
    return torch.ops.aten.index_put(x, indices, value)


def negatives_to_zero(x: Tensor) -> Tensor:
    y = x.clone()
    y[y < 0] = 0
    return y


LAST_FIRST = torch.tensor([1, 0])
PIXELS = torch.tensor([[3, 0], [1, 2]])


@pytest.mark.parametrize(
    "function",
    [
        negatives_to_zero,
        lambda x: put(x, (None, (x > 0)[0]), torch.ones(())),
        add_rows,
        lambda x: put(x, (LAST_FIRST,), 2 * x),
        lambda x: put(x, (LAST_FIRST,), x[0].tanh()),
        lambda x: put(x, (torch.tensor([True, False]),), x[1:].tanh()),
        lambda x: put(x, (None, None, LAST_FIRST, LAST_FIRST), x[..., 0, :2].exp()),
        lambda x: put(x, (LAST_FIRST, None, LAST_FIRST), x[:, :, 3].exp()),
        lambda x: put(x, (None, None, PIXELS), x[:, :, 1:, None].repeat(1, 1, 1, 2, 1)[:, :, :2].exp()),
        lambda x: torch.slice_scatter(x, x[:, :, :2].exp(), 2, 1, 3),
        lambda x: torch.select_scatter(x, x[:, :, 0].exp(), 2, 3),
        lambda x: torch.select_scatter(x, x[0].exp(), 0, 1),
    ],
)
def test_writes_at_other_axes_leave_channels_free(function: Function) -> None:
    assert_half_goes(function)


def test_rows_written_at_a_mask_of_tokens_are_followed() -> None:
    class Merged(nn.Module):
        """Features of a picture in the place of some tokens."""

        def __init__(self) -> None:
            super().__init__()
            self.text, self.picture, self.head = nn.Linear(3, 8), nn.Linear(5, 8), nn.Linear(8, 2)

        def forward(self, x: Tensor, picture: Tensor, mask: Tensor) -> Tensor:
            text = self.text(x)
            return self.head(text.masked_scatter((mask > 0)[..., None].expand_as(text), self.picture(picture)))

    model, mask = Merged().double(), torch.tensor([[0, 1, 0, 1], [1, 0, 0, 0]]).double()
    assert prune_half(model, torch.randn(2, 4, 3).double(), torch.randn(3, 5).double(), mask - 0.2) < 1e-12
    assert model.text.out_features == 4


@pytest.mark.parametrize(
    "function",
    [
        lambda x: x.masked_scatter(x > 0, x),
        lambda x: put(x, (x > 0,), torch.randn(int((x > 0).sum()), dtype=x.dtype)),
        lambda x: torch.slice_scatter(x, x[:, :2].exp(), 1, 1, 3),
        lambda x: put(x, (None, LAST_FIRST), x[:, :2].exp()),
    ],
)
def test_writes_at_numbered_channels_protect_them(function: Function) -> None:
    model = Between(function).double()
    model(images(0))
    assert gsprune.trace(model, images(0)).groups == ()


@pytest.mark.parametrize(
    "loss",
    [F.mse_loss, F.l1_loss, F.smooth_l1_loss, F.huber_loss, F.soft_margin_loss, F.binary_cross_entropy_with_logits],
)
def test_losses_inside_of_a_forward_are_element_wise(loss: Callable[..., Tensor]) -> None:
    assert_half_goes(lambda x: loss(x, x.detach().sin(), reduction="none"))
    assert_half_goes(lambda x: x + 0 * loss(x, x.detach().sin()))
    model = Between(lambda x: x * loss(x, x.detach().sin())).double()
    model(images(0))
    (op,) = gsprune.trace(model, images(0)).inexact
    assert op in (f"aten.{loss.__name__}", "aten.mean")


def test_binary_cross_entropy_of_probabilities_is_element_wise() -> None:
    assert_half_goes(lambda x: F.binary_cross_entropy(x.sigmoid(), x.cos().abs(), reduction="none"))


def pairs(x: Tensor) -> Tensor:
    """LaMa's spectral block: real and imaginary parts are channels, and back."""
    y = torch.fft.rfftn(x, dim=(-2, -1), norm="ortho")
    y = torch.stack((y.real, y.imag), -1).permute(0, 1, 4, 2, 3).contiguous()
    y = torch.relu(y.view(len(x), -1, *y.shape[3:]))
    y = y.view(len(x), -1, 2, *y.shape[2:]).permute(0, 1, 3, 4, 2).contiguous()
    return torch.fft.irfftn(torch.complex(y[..., 0], y[..., 1]), s=x.shape[-2:], dim=(-2, -1), norm="ortho")


@pytest.mark.parametrize(
    "function",
    [
        pairs,
        lambda x: torch.fft.irfft2(torch.fft.rfft2(x) * 0.5, s=x.shape[-2:]),
        lambda x: torch.fft.fft(x, dim=0).real,
        lambda x: torch.fft.ifft2(torch.fft.fftshift(torch.fft.fft2(x), dim=(2, 3))).imag,
        lambda x: torch.view_as_complex(torch.view_as_real(torch.polar(x.abs(), x))).angle(),
    ],
)
def test_fourier_transforms_over_positions_keep_the_channels(function: Function) -> None:
    assert_half_goes(function)


def test_bins_of_elements_are_element_wise_and_their_embeddings_belong_to_the_channels() -> None:
    class Binned(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.bins, self.head = nn.Linear(3, 8), nn.Embedding(4, 6), nn.Linear(48, 2)
            self.register_buffer("limits", torch.tensor([-0.5, 0.0, 0.5], dtype=torch.float64))

        def forward(self, x: Tensor) -> Tensor:
            y = self.first(x)
            return self.head((self.bins(torch.bucketize(y, self.limits)) * y[..., None]).flatten(1))

    model = Binned().double()
    assert prune_half(model, torch.randn(5, 3).double()) < 1e-12
    assert (model.first.out_features, model.head.in_features, len(model.limits)) == (4, 24, 3)
    assert_half_goes(lambda x: torch.searchsorted(torch.tensor([-0.5, 0.1, 0.3]).double(), x).double())
