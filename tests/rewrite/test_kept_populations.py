"""Behind norms, means and extremes over channels, a wrong result is found as in any other network."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import gsprune

X = torch.randn(5, 12, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
Function = Callable[[Tensor], Tensor]


class Counting(nn.Module):
    """A layer, a function of its channels, and a division by their number, which the tracer cannot see."""

    def __init__(self, function: Function, *, counts: bool) -> None:
        super().__init__()
        self.function, self.counts = function, counts
        self.first, self.second, self.last = nn.Linear(12, 16), nn.Linear(16, 8), nn.Linear(8, 3)
        self.gain, self.shift = nn.Parameter(torch.rand(16) + 0.5), nn.Parameter(torch.rand(16))

    def forward(self, x: Tensor) -> Tensor:
        h = self.second(self.function(self.first(x)) * self.gain + self.shift)
        number = self.first.weight.untyped_storage().nbytes() // (12 * 8) if self.counts else 16
        return self.last(h.tanh()) / torch.from_numpy(number * np.array([1.0, 2.0, 3.0]))


def images(h: Tensor) -> Tensor:
    return h[:, :, None, None] * torch.linspace(0.5, 1.5, 4, dtype=h.dtype).view(2, 2)


def standardised(h: Tensor) -> Tensor:
    return (h - h.mean(1, keepdim=True)) / (h.var(1, keepdim=True) + 1e-5).sqrt()


POPULATIONS: list[Function] = [
    lambda h: F.layer_norm(h, h.shape[1:]),
    lambda h: F.layer_norm(images(h).flatten(2).mT, h.shape[1:]).mean(1),
    lambda h: F.layer_norm(images(h), images(h).shape[1:]).mean((2, 3)),
    lambda h: F.rms_norm(h, h.shape[1:]),
    lambda h: F.group_norm(h, 1),
    lambda h: F.group_norm(images(h), 4).mean((2, 3)),
    lambda h: h * (h.pow(2).mean(1, keepdim=True) + 1e-6).rsqrt(),
    lambda h: F.normalize(h, dim=1),
    lambda h: h.softmax(1),
    lambda h: h.log_softmax(1),
    lambda h: h * h.sigmoid().sum(1, keepdim=True),
    lambda h: h / (1 + h.amax(1, keepdim=True).exp()),
    lambda h: h * h.max(1, keepdim=True).values,
    lambda h: h * F.mse_loss(h, h.relu()),
    lambda h: h * (h.sigmoid() @ h.sigmoid().T).mean(1, keepdim=True),
    lambda h: h if bool(h.mean() > 9) else 2 * h,
    standardised,
]


@pytest.mark.parametrize("function", POPULATIONS)
def test_a_wrong_number_is_found_behind_channels_that_are_read_all_at_once(function: Function) -> None:
    torch.manual_seed(0)
    right, wrong = Counting(function, counts=False).double(), Counting(function, counts=True).double()
    assert gsprune.trace(right, X).inexact
    gsprune.prune_step(right, 0.5, example_inputs=X)
    assert (right.first.out_features, right.second.out_features) == (8, 4)
    before = wrong(X)
    report = gsprune.prune_step(wrong, {"first": 0.5, "second": 0.0}, example_inputs=X)
    assert torch.equal(wrong(X), before)
    assert any("computes other values" in item.reason for item in report.protected if "first" in item.names), report


class StandardisedLayers(nn.Module):
    """Weights without mean over the inputs, as batch norms of reshaped weights: two axes of each become one."""

    def __init__(self, *, counts: bool) -> None:
        super().__init__()
        self.first, self.second, self.counts = nn.Conv2d(3, 16, 3), nn.Conv2d(16, 3, 3), counts

    def forward(self, x: Tensor) -> Tensor:
        weight = self.second.weight
        normed = F.batch_norm(weight.reshape(1, len(weight), -1), None, None, training=True).reshape_as(weight)
        number = self.first.bias.untyped_storage().nbytes() // 8 if self.counts else 16  # type: ignore[union-attr]
        return F.conv2d(self.first(x).relu(), normed) / torch.from_numpy(np.full(1, number, np.float64))


def test_a_wrong_number_is_found_behind_standardised_weights() -> None:
    torch.manual_seed(0)
    x = torch.randn(2, 3, 8, 8, dtype=torch.float64)
    right, wrong = StandardisedLayers(counts=False).double(), StandardisedLayers(counts=True).double()
    assert gsprune.prune_step(right, 0.5, example_inputs=x).changed
    before = wrong(x)
    with pytest.warns(gsprune.PruneWarning, match="can be removed"):
        gsprune.prune_step(wrong, 0.5, example_inputs=x)
    assert torch.equal(wrong(x), before)


class Parts(nn.Module):
    """Parts of a layer's channels, at positions and of a length that the module stores."""

    def __init__(self, parts: Callable[[Parts, Tensor], tuple[Tensor, ...]], norm: nn.Module) -> None:
        super().__init__()
        self.parts, self.start, self.length = parts, 8, 8
        self.first, self.norm, self.last = nn.Linear(12, 24), norm, nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        a, b, c = self.parts(self, self.first(x))
        return self.last(self.norm(a.tanh() * b + c))


@pytest.mark.parametrize("norm", [nn.Identity, lambda: nn.LayerNorm(8)])
@pytest.mark.parametrize(
    "parts",
    [
        lambda net, h: (h[:, net.start : net.start + net.length], h[:, : net.length], h[:, -net.length :]),
        lambda net, h: (h.narrow(1, net.start, net.length), h[:, : net.length], h[:, -net.length :]),
        lambda net, h: (h[:, -2 * net.start : -net.length], h[:, : net.length], h[:, -net.length :]),
    ],
)
def test_stored_positions_of_parts_follow(
    parts: Callable[[Parts, Tensor], tuple[Tensor, ...]], norm: Callable[[], nn.Module]
) -> None:
    torch.manual_seed(0)
    model = Parts(parts, norm()).double()
    gsprune.prune_step(model, 0.5, example_inputs=X)
    assert (model.first.out_features, model.start, model.length) == (12, 4, 4)
    gsprune.prune_step(model, 0.75)
    assert (model.first.out_features, model.start, model.length) == (6, 2, 2)
    expected = model.last(model.norm(model.first(X)[:, 2:4].tanh() * model.first(X)[:, :2] + model.first(X)[:, 4:]))
    torch.testing.assert_close(model(X), expected, rtol=0, atol=0)
