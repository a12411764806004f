"""Fits of convolutions on whole patches."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import gsprune
from gsprune.compensation.consumer import Consumer
from gsprune.compensation.patches import PatchSample, num_patch_rows
from gsprune.compensation.uses import ConvGeometry, Use


def pictures(count: int = 64, seed: int = 0) -> Tensor:
    """Smooth pictures, (count, 3, 12, 12)."""
    noise = torch.randn(count, 3, 14, 14, generator=torch.Generator().manual_seed(seed))
    return F.avg_pool2d(noise, 3, 1)


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 12, 3, padding=1), nn.ReLU(), nn.Conv2d(12, 12, 3, padding=1), nn.ReLU(), nn.Conv2d(12, 4, 3)
    )


@pytest.mark.parametrize(
    ("sizes", "kernel"),
    [
        ((9,), ConvGeometry((3,), (2,), (1,), (1,))),
        ((8, 6), ConvGeometry((3, 2), (1, 2), (1, 0), (1, 2))),
        ((4, 5, 4), ConvGeometry((2, 3, 2), (1, 1, 1), (1, 1, 0), (1, 1, 1))),
    ],
)
def test_the_products_of_patches_are_the_outputs_of_the_convolution(
    sizes: tuple[int, ...], kernel: ConvGeometry
) -> None:
    conv = (F.conv1d, F.conv2d, F.conv3d)[len(sizes) - 1]
    x, weight = torch.randn(3, 4, *sizes).double(), torch.randn(5, 4, *kernel.sizes).double()
    kept = torch.tensor([0, 2, 3])
    consumer = Consumer("conv.weight", 1, kept.numpy(), torch.arange(4)[:, None].numpy())
    sample = PatchSample(Use("conv.weight", x, 1, kernel=kernel), consumer, weight, 10**6, (0,), is_first=True)
    expected = conv(x, weight, None, *kernel[1:])
    torch.testing.assert_close(sample.products, expected.movedim(1, -1).reshape(-1, 5))
    left = Use("conv.weight", x[:, kept], 1, kernel=kernel)
    assert sample.matches(left)
    torch.testing.assert_close(
        sample.pruned(left) @ weight[:, kept].flatten(1).T,
        conv(x[:, kept], weight[:, kept], None, *kernel[1:]).movedim(1, -1).reshape(-1, 5),
    )


def test_a_fit_on_patches_must_have_samples_and_be_affordable() -> None:
    kernel, weight = ConvGeometry((3, 3), (1, 1), (1, 1), (1, 1)), torch.zeros(16, 16, 3, 3)
    rows = [
        num_patch_rows(Use("conv.weight", torch.zeros(count, 16, 8, 8), 1, kernel=kernel), 8, weight, 1)
        for count in (1, 100)
    ]
    assert rows[0] == 0
    assert rows[1] >= 4 * 8 * 9
    point = ConvGeometry((1, 1), (1, 1), (0, 0), (1, 1))
    use = Use("conv.weight", torch.zeros(100, 16, 8, 8), 1, kernel=point)
    assert num_patch_rows(use, 8, weight[:, :, :1, :1], 1) == 0


def error(**options: Any) -> float:
    net = network()
    expected = net(pictures(64, 1)).detach()
    gsprune.prune_step(net, 0.5, example_inputs=pictures(2), compensate="linear", **options)
    return float((net(pictures(64, 1)).detach() - expected).square().mean())


def test_patches_explain_more_than_channels(monkeypatch: pytest.MonkeyPatch) -> None:
    on_patches = error(calibration=pictures(512))
    in_batches = error(calibration=list(pictures(512).split(128)))
    monkeypatch.setattr("gsprune.compensation.patches._MAX_COST", 0.0)
    on_channels = error(calibration=pictures(512))
    assert on_patches < 0.9 * on_channels
    assert in_batches < 0.9 * on_channels


def test_followers_with_other_weights_are_fitted_to_their_own_outputs() -> None:
    net = network().double()
    target = copy.deepcopy(net)
    with torch.no_grad():
        for conv in (net[0], target[0]):  # the last six channels repeat the first six
            conv.weight[6:], conv.bias[6:] = conv.weight[:6].clone(), conv.bias[:6].clone()
        target[2].weight += 0.3 * torch.randn_like(target[2].weight)
    x = pictures(256).double()
    expected = [target[:3](x).detach(), net[:3](x).detach()]
    report = gsprune.prune_step(
        net, {"0": 0.5}, followers=[target], example_inputs=x[:2], compensate="linear", calibration=x,
        importance=lambda matrix: torch.arange(len(matrix), 0.0, -1),
    )  # fmt: skip
    assert report.compensation is not None
    assert net[2].weight.shape == (12, 6, 3, 3)
    for small, dense in zip((target, net), expected, strict=True):
        torch.testing.assert_close(small[:3](x), dense, rtol=1e-9, atol=1e-9)


def test_a_dependency_holds_at_borders_that_no_sampled_patch_has() -> None:
    x = torch.randn(32, 2, 1, 1, generator=torch.Generator().manual_seed(0)).double().expand(-1, -1, 8, 8)
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(2, 6, 1, bias=False), nn.Conv2d(6, 12, 3, padding=1, bias=False)).double()
    with torch.no_grad():
        net[0].weight[[0, 2, 4, 5]] = net[0].weight[3].clone()
    expected = net(x).detach()
    options: dict[str, Any] = {"importance": lambda matrix: torch.tensor([0.0, 9, 1, 9, 2, 3])}
    gsprune.prune_step(net, {"0": 0.67}, example_inputs=x[:2], compensate="linear", calibration=x, **options)
    assert net[1].weight.shape == (12, 2, 3, 3)
    torch.testing.assert_close(net(x), expected, rtol=1e-9, atol=1e-9)
