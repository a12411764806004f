"""Uses of weights in a forward pass."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from gsprune.compensation.use_watcher import UseWatcher
from gsprune.compensation.uses import ConvGeometry, Use, padding_share


@pytest.mark.parametrize(
    ("sizes", "kernel", "stride", "padding", "dilation"),
    [
        ((8,), (3,), (1,), (1,), (1,)),
        ((8, 5), (3, 5), (2, 1), (1, 2), (1, 1)),
        ((9, 9), (3, 3), (1, 1), (2, 2), (2, 2)),
        ((4, 4, 6), (2, 2, 3), (2, 2, 2), (0, 0, 0), (1, 1, 1)),
    ],
)
def test_the_share_of_padding_is_that_of_the_zeros_that_a_convolution_reads(
    sizes: tuple[int, ...],
    kernel: tuple[int, ...],
    stride: tuple[int, ...],
    padding: tuple[int, ...],
    dilation: tuple[int, ...],
) -> None:
    conv = (F.conv1d, F.conv2d, F.conv3d)[len(sizes) - 1]
    ones = torch.ones(1, 1, *kernel)
    read = conv(torch.ones(1, 1, *sizes), ones, None, stride, padding, dilation)
    expected = 1 - read.mean() / ones.sum()
    assert padding_share(sizes, ConvGeometry(kernel, stride, padding, dilation)) == pytest.approx(
        expected.item(), abs=1e-6
    )


def watch(model: nn.Module, axes: dict[str, int], *inputs: torch.Tensor) -> tuple[list[Use], UseWatcher]:
    uses: list[Use] = []
    tensors = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    watcher = UseWatcher(tensors, axes, uses.append)
    with torch.no_grad(), watcher:
        model.eval()(*inputs)
    return uses, watcher


@pytest.mark.parametrize("shape", [(3, 4), (2, 3, 4), (4,), (2, 1, 3, 4)])
def test_a_linear_layer_takes_a_constant_in_its_bias(shape: tuple[int, ...]) -> None:
    model = nn.Sequential(nn.Linear(4, 5))
    uses, watcher = watch(model, {"0.weight": 1}, torch.randn(shape))
    assert [use.inputs.shape[use.channel_axis] for use in uses] == [4]
    assert watcher.places.of("0.weight") == (("0.bias", 0),)


def test_a_bias_that_is_added_later_is_found() -> None:
    model = nn.Sequential(nn.Linear(4, 5))
    x = torch.randn(4, 3, 2).transpose(0, 2)  # torch multiplies, reshapes and adds
    assert watch(model, {"0.weight": 1}, x)[1].places.of("0.weight") == (("0.bias", 0),)


def test_a_batch_norm_takes_the_constant_of_a_convolution_without_a_bias() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3, bias=False), nn.BatchNorm2d(4))
    watcher = watch(model, {"0.weight": 1}, torch.randn(2, 3, 8, 8))[1]
    assert watcher.places.of("0.weight") == (("1.running_mean", 0),)


class _Behind(nn.Module):
    """A layer without a bias, and code behind it that uses a bias or a norm."""

    def __init__(self, layer: nn.Module, bias: torch.Tensor | nn.Module, code: Callable[..., torch.Tensor]) -> None:
        super().__init__()
        self.layer, self.code = layer, code
        self.bias = nn.Parameter(bias) if isinstance(bias, torch.Tensor) else bias

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.code(self, x)


def _linear(bias: torch.Tensor | nn.Module, code: Callable[..., torch.Tensor], outputs: int = 6) -> nn.Module:
    return _Behind(nn.Linear(4, outputs, bias=False), bias, code)


@pytest.mark.parametrize(
    ("model", "shape"),
    [
        (_linear(nn.BatchNorm1d(6), lambda m, x: m.bias(m.layer(x).transpose(1, 2))), (2, 3, 4)),
        (_linear(nn.BatchNorm1d(6), lambda m, x: m.bias(m.layer(x).flatten(0, 1))), (2, 3, 4)),
        (_linear(nn.BatchNorm2d(6), lambda m, x: m.bias(m.layer(x)[:, :, None, None])), (2, 4)),
        (_linear(torch.ones(1, 6), lambda m, x: torch.addmm(m.bias, x, m.layer.weight.t())), (2, 4)),
        (_linear(torch.ones(6, 1), lambda m, x: m.layer(x).mT + m.bias), (2, 4)),
        (_linear(torch.ones(1), lambda m, x: m.layer(x) + m.bias, 1), (2, 4)),
        (_Behind(nn.Conv2d(4, 6, 1, bias=False), torch.ones(6, 1, 1), lambda m, x: m.layer(x) + m.bias), (2, 4, 3, 3)),
        (
            _Behind(nn.Conv2d(4, 6, 1, bias=False), torch.ones(6), lambda m, x: m.layer(x).mT + m.bias[:, None, None]),
            (2, 4, 3, 3),
        ),
    ],
)
def test_a_place_may_lie_behind_views_that_leave_the_outputs_along_one_axis(
    model: nn.Module, shape: tuple[int, ...]
) -> None:
    name = "bias.running_mean" if isinstance(model.bias, nn.Module) else "bias"
    assert watch(model, {"layer.weight": 1}, torch.randn(shape))[1].places.of("layer.weight") == ((name, 0),)


@pytest.mark.parametrize(
    ("model", "shape"),
    [
        (_linear(nn.BatchNorm2d(3), lambda m, x: m.bias(m.layer(x).view(-1, 3, 1, 2))), (2, 4)),
        (_linear(nn.BatchNorm1d(3), lambda m, x: m.bias(m.layer(x))), (2, 3, 4)),
        (_linear(nn.BatchNorm1d(6), lambda m, x: m.bias(m.layer(x).t())), (6, 4)),
        (_linear(nn.BatchNorm1d(12), lambda m, x: m.bias(m.layer(x).flatten(1))), (2, 2, 4)),
        (_linear(nn.BatchNorm1d(3), lambda m, x: m.bias(m.layer(x)[:, :3])), (2, 4)),
        (
            _Behind(nn.Conv2d(4, 6, 1, bias=False), nn.BatchNorm1d(54), lambda m, x: m.bias(m.layer(x).flatten(1))),
            (2, 4, 3, 3),
        ),
        (_Behind(nn.Conv2d(4, 6, 1, bias=False), torch.ones(6), lambda m, x: m.layer(x) + m.bias), (2, 4, 6, 6)),
        (
            _Behind(nn.ConvTranspose2d(4, 4, 1, 2, bias=False), torch.ones(4, 1, 1), lambda m, x: m.layer(x) + m.bias),
            (2, 4, 3, 3),
        ),
        (_linear(torch.ones(6), lambda m, x: torch.addmm(m.bias, x, m.layer.weight.t(), beta=2)), (2, 4)),
        (_linear(torch.ones(6), lambda m, x: torch.addmm(m.bias, x, m.layer.weight.t(), alpha=2)), (2, 4)),
        (_linear(torch.ones(6), lambda m, x: torch.add(m.layer(x), m.bias, alpha=2)), (2, 4)),
        (
            _linear(
                torch.ones(6),
                lambda m, x: F.linear(x, m.layer.weight[:3], m.bias[:3]) + F.linear(x, m.layer.weight[3:]),
            ),
            (2, 4),
        ),
        (_linear(torch.ones(3), lambda m, x: F.linear(x, m.layer.weight[::2], m.bias)), (2, 4)),
        (_linear(torch.ones(12), lambda m, x: F.linear(x, m.layer.weight, m.bias[::2])), (2, 4)),
        (_linear(torch.ones(1), lambda m, x: m.layer(x) + m.bias), (2, 4)),
        (_linear(torch.ones(3, 6), lambda m, x: F.linear(x, m.layer.weight, m.bias[1])), (2, 4)),
        (_linear(torch.ones(6), lambda m, x: (m.layer(x).view(torch.int32), m.layer(x) + m.bias)[1]), (2, 4)),
    ],
)
def test_a_place_needs_one_element_for_each_output(model: nn.Module, shape: tuple[int, ...]) -> None:
    axis = 0 if isinstance(model.layer, nn.ConvTranspose2d) else 1
    uses, watcher = watch(model, {"layer.weight": axis}, torch.randn(shape))
    assert uses
    assert watcher.places.of("layer.weight") == ()


class _NormAndSkip(nn.Sequential):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self[0](x)
        return self[1](y) + y


class _TwiceBiased(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(4, 4), nn.Linear(4, 4)
        self.second.bias = self.first.bias

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.second(self.first(x))


@pytest.mark.parametrize(
    ("model", "weight", "shape"),
    [
        (nn.Sequential(nn.Conv2d(3, 4, 3, bias=False)), "0.weight", (2, 3, 8, 8)),
        (_NormAndSkip(nn.Conv2d(3, 4, 3, bias=False), nn.BatchNorm2d(4)), "0.weight", (2, 3, 8, 8)),
        (_TwiceBiased(), "second.weight", (2, 4)),
        (nn.Sequential(nn.ConvTranspose2d(3, 4, 2, stride=2)), "0.weight", (2, 3, 8, 8)),
    ],
    ids=["no bias", "read besides the norm", "shared bias", "transposed"],
)
def test_a_constant_has_no_place_where_it_would_change_anything_else(
    model: nn.Module, weight: str, shape: tuple[int, ...]
) -> None:
    axis = 0 if isinstance(model[0] if isinstance(model, nn.Sequential) else None, nn.ConvTranspose2d) else 1
    uses, watcher = watch(model, {weight: axis}, torch.randn(shape))
    assert len(uses) == 1
    assert watcher.places.of(weight) == ()


def test_a_weight_that_something_else_reads_is_unsupported() -> None:
    class Decayed(nn.Linear):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return super().forward(x) * self.weight.norm()

    assert "weight" in watch(Decayed(4, 5), {"weight": 1}, torch.randn(2, 4))[1].unsupported


def test_a_part_of_an_input_axis_is_unsupported() -> None:
    class Halves(nn.Linear):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x[:, :2] @ self.weight[:, :2].t()

    uses, watcher = watch(Halves(4, 5), {"weight": 1}, torch.randn(2, 4))
    assert not uses
    assert "weight" in watcher.unsupported
