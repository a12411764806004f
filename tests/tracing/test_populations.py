"""Operations that read all channels at once are pruned and named inexact; nothing else differs from the mask.

The masked network's zeros count in a mean and in a softmax. Where the count is made up for, both networks are equal.
"""

from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F
from affine_norms import affine_norms
from masked_networks import masked_copy
from torch import Tensor, nn

import gsprune

WIDTH = 12


class Population(nn.Module):
    """Two convolutions with something between them that reads all channels."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.inner = nn.Conv2d(3, WIDTH, 3), nn.Conv2d(WIDTH, 8, 1)
        self.gamma = nn.Parameter(torch.rand(1, WIDTH, 1, 1) + 0.5)
        self.head = nn.Conv2d(8, 2, 1)

    def between(self, x: Tensor) -> Tensor:
        return x

    def forward(self, x: Tensor) -> Tensor:
        return self.head(torch.relu(self.inner(self.between(self.stem(x)))))


class ResponseNorm(Population):
    """ConvNeXt V2's norm: each channel's magnitude over the mean of all."""

    def between(self, x: Tensor) -> Tensor:
        magnitude = torch.norm(x, p=2, dim=(2, 3), keepdim=True)
        return self.gamma * (x * (magnitude / magnitude.mean(1, keepdim=True)))


class MeanGate(Population):
    """Every channel is multiplied by the mean of all."""

    def between(self, x: Tensor) -> Tensor:
        return self.gamma * x * x.mean(1, keepdim=True)


class Softmax(Population):
    """A distribution over channels."""

    def between(self, x: Tensor) -> Tensor:
        return self.gamma * x.softmax(1)


class LogSoftmax(Population):
    def between(self, x: Tensor) -> Tensor:
        return self.gamma * F.log_softmax(x, 1)


class Largest(Population):
    """Zeros are never the largest of what is positive."""

    def between(self, x: Tensor) -> Tensor:
        return self.gamma * x / (1.0 + F.relu(x).amax(1, keepdim=True))


class Standardised(nn.Conv2d):
    """Weight standardisation over the inputs, as NFNets and BiT do."""

    def forward(self, x: Tensor) -> Tensor:
        mean, var = self.weight.mean((1, 2, 3), keepdim=True), self.weight.var((1, 2, 3), keepdim=True)
        return F.conv2d(x, (self.weight - mean) / (var + 1e-5).sqrt(), self.bias)


def pruned(network: type[Population]) -> tuple[nn.Module, nn.Module, gsprune.PruneReport, Tensor]:
    torch.manual_seed(0)
    model, x = network().double(), torch.randn(2, 3, 6, 6, dtype=torch.float64)
    dense = copy.deepcopy(model)
    assert gsprune.trace(model, x).inexact
    report = gsprune.prune_step(model, 0.5, example_inputs=x)
    assert model.stem.out_channels == WIDTH // 2
    return model, masked_copy(dense, report.removed), report, x


@pytest.mark.parametrize(("network", "power"), [(ResponseNorm, 1), (MeanGate, -1)])
def test_a_mean_over_channels_differs_by_the_count_of_zeros_alone(network: type[Population], power: int) -> None:
    model, masked, _, x = pruned(network)
    assert not torch.allclose(model(x), masked(x))
    with torch.no_grad():
        masked.gamma.mul_(0.5**power)
    torch.testing.assert_close(model(x), masked(x), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("network", [Softmax, LogSoftmax])
def test_a_softmax_over_channels_differs_by_the_removed_channels_share_alone(network: type[Population]) -> None:
    model, masked, report, x = pruned(network)
    assert not torch.allclose(model(x), masked(x))
    with torch.no_grad():
        masked.stem.bias[report.removed["stem.bias"][0]] = -1e6
    torch.testing.assert_close(model(x), masked(x), rtol=1e-9, atol=1e-9)


def test_a_maximum_over_what_is_not_negative_is_the_masked_one() -> None:
    model, masked, _, x = pruned(Largest)
    torch.testing.assert_close(model(x), masked(x), rtol=1e-9, atol=1e-9)


def test_weight_standardisation_over_pruned_inputs_is_named_as_inexact() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), Standardised(8, 6, 1), nn.ReLU(), nn.Conv2d(6, 2, 1))
    graph = gsprune.trace(model, torch.randn(1, 3, 8, 8))
    assert {"aten.mean", "aten.var"} <= set(graph.inexact)
    gsprune.prune_step(model, 0.5, example_inputs=torch.randn(1, 3, 8, 8))
    assert [layer.weight.shape[:2] for layer in model if isinstance(layer, nn.Conv2d)] == [(4, 3), (3, 4), (2, 3)]


class Normed(nn.Conv2d):
    """The same written as a batch norm of the weight, as timm does."""

    def __init__(self, *sizes: int) -> None:
        super().__init__(*sizes)
        self.gain = nn.Parameter(torch.rand(self.out_channels) + 0.5)

    def forward(self, x: Tensor) -> Tensor:
        whole = self.weight.reshape(1, self.out_channels, -1)
        weight = F.batch_norm(whole, None, None, weight=self.gain, training=True, momentum=0.0)
        return F.conv2d(x, weight.reshape_as(self.weight), self.bias)


def test_a_weight_standardised_by_a_batch_norm_makes_channels_that_go_one_by_one() -> None:
    torch.manual_seed(0)
    layers = (Normed(3, 8, 3), nn.ReLU(), Normed(8, 6, 3), nn.ReLU(), Normed(6, 5, 1), nn.ReLU(), nn.Conv2d(5, 2, 1))
    model, x = nn.Sequential(*layers).double(), torch.randn(1, 3, 8, 8, dtype=torch.float64)
    graph = gsprune.trace(model, x)
    assert [(group.name, group.width) for group in graph.groups] == [("0", 8), ("2", 6), ("4", 5)]
    assert "aten.batch_norm" in graph.inexact or "aten.native_batch_norm" in graph.inexact, graph.inexact
    dense = copy.deepcopy(model)
    report = gsprune.prune_step(model, {"0": 0.5, "2": 0.0, "4": 0.4}, example_inputs=x)
    masked = masked_copy(dense, report.removed)
    with affine_norms():
        torch.testing.assert_close(model(x), masked(x), rtol=1e-9, atol=1e-9)
