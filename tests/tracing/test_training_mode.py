"""Tensors that only training mode uses follow the channels, or protect them."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

import gsprune

X = torch.randn(16, 6)


class Statistics(nn.Module):
    """A hidden layer with statistics that are updated in training and used by nothing else."""

    def __init__(self, **buffers: Tensor) -> None:
        super().__init__()
        self.hidden, self.head = nn.Linear(6, 8), nn.Linear(8, 2)
        for name, buffer in buffers.items():
            self.register_buffer(name, buffer)

    def forward(self, x: Tensor) -> Tensor:
        h = self.hidden(x).relu()
        if self.training:
            self.update(h.detach())
        return self.head(h)

    def update(self, h: Tensor) -> None:
        raise NotImplementedError


class Mean(Statistics):
    def __init__(self) -> None:
        super().__init__(mean=torch.zeros(8), count=torch.zeros(()))

    def update(self, h: Tensor) -> None:
        self.mean.lerp_(h.mean(0), 0.1)
        self.count += 1


class NewTensor(Statistics):
    def __init__(self) -> None:
        super().__init__(mean=torch.zeros(8))

    def update(self, h: Tensor) -> None:
        self.mean = 0.9 * self.mean + 0.1 * h.mean(0)


class Covariance(Statistics):
    def __init__(self) -> None:
        super().__init__(mean=torch.zeros(8, 8))

    def update(self, h: Tensor) -> None:
        self.mean.mul_(0.9).add_(h.t() @ h)


class PlainAttribute(Statistics):
    def __init__(self) -> None:
        super().__init__()
        self.mean = torch.zeros(8)

    def update(self, h: Tensor) -> None:
        self.mean = self.mean + h.mean(0)


@pytest.mark.parametrize("network", [Mean, NewTensor, Covariance])
def test_buffers_that_only_training_updates_are_sliced(network: type[Statistics]) -> None:
    model = network()
    model(X)
    before = model.mean.clone()
    report = gsprune.prune_step(model, 0.5, example_inputs=X)
    assert torch.equal(model.mean, report.slice("mean", before))
    assert set(model.mean.shape) == {4}
    model(X)


def test_a_plain_attribute_that_only_training_updates_protects_its_channels() -> None:
    model = PlainAttribute()
    graph = gsprune.trace(model, X)
    assert graph.groups == ()
    assert any("with a tensor of fixed size" in held.reason for held in graph.protected)
    assert torch.equal(model.mean, torch.zeros(8))
