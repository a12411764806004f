"""Tensors, stored sizes and ties that the forward uses in training mode only."""

from __future__ import annotations

import copy
import random
from collections.abc import Callable

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from masked_networks import masked_copy
from snapshots import snapshot
from torch import Tensor, nn

import gsprune
from gsprune.tracing.training_mode import reads_training

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


class Autoencoder(nn.Module):
    """A variational autoencoder: noise of a stored size in training, the mean in eval mode."""

    def __init__(self) -> None:
        super().__init__()
        self.size = 16
        self.encoder, self.decoder = nn.Linear(6, 32), nn.Linear(16, 6)
        self.mean, self.log_variance = nn.Linear(32, 16), nn.Linear(32, 16)

    def forward(self, x: Tensor) -> Tensor:
        h = self.encoder(x).relu()
        z, log_variance = self.mean(h), self.log_variance(h)
        if self.training:
            z = z + torch.randn(len(x), self.size) * (log_variance / 2).exp()
        return self.decoder(z)


class ChannelDropout(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.channels = 16
        self.first, self.last = nn.Conv2d(3, 16, 3), nn.Conv2d(16, 4, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x).relu()
        if self.training:
            x = x * torch.empty(len(x), self.channels, 1, 1).bernoulli_(0.9) / 0.9
        return self.last(x)


class PartialConvolution(nn.Module):
    """FasterNet's convolution of some of the channels: a split in training, writes into a slice in eval mode."""

    def __init__(self) -> None:
        super().__init__()
        self.some, self.rest = 4, 12
        self.first, self.partial, self.last = nn.Conv2d(3, 16, 3), nn.Conv2d(4, 4, 3, padding=1), nn.Conv2d(16, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        if self.training:
            some, rest = torch.split(x, [self.some, self.rest], 1)
            return self.last(torch.cat([self.partial(some), rest], 1))
        x = x.clone()
        x[:, : self.some] = self.partial(x[:, : self.some])
        return self.last(x)


FRAMES = torch.randn(2, 3, 8, 8)


@pytest.mark.parametrize(
    ("network", "x", "sizes"),
    [
        (Autoencoder, X, {"size": 8}),
        (ChannelDropout, FRAMES, {"channels": 8}),
        (PartialConvolution, FRAMES, {"some": 2, "rest": 6}),
    ],
)
def test_stored_sizes_that_only_training_uses_follow_the_channels(
    network: type[nn.Module], x: Tensor, sizes: dict[str, int]
) -> None:
    torch.manual_seed(0)
    model, x = network().double(), x.double()
    dense = copy.deepcopy(model).eval()
    report = gsprune.prune_step(model, 0.5, example_inputs=x)
    model(x)
    assert {name: getattr(model, name) for name in sizes} == sizes
    assert report.params_after < 0.55 * report.params_before
    torch.testing.assert_close(model.eval()(x), masked_copy(dense, report.removed)(x), rtol=1e-9, atol=1e-9)


def test_stored_sizes_that_only_training_uses_follow_the_channels_of_every_later_step() -> None:
    model = Autoencoder()
    pruner = gsprune.Pruner(model, gsprune.schedules.Linear(0.75), example_inputs=X)
    for progress in (0.25, 0.5, 1.0):
        pruner.step(progress)
        model(X)
    assert model.size == model.mean.out_features == 4


class WrittenNoise(nn.Module):
    """Noise per channel whose number the code contains."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.hidden, self.last = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 12, 1), nn.Conv2d(12, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        if self.training:
            x = x + torch.randn(len(x), 8, 1, 1)
        return self.last(self.hidden(x.relu()))


def test_a_size_written_into_training_code_protects_only_its_channels() -> None:
    model = WrittenNoise()
    report = gsprune.prune_step(model, 0.5, example_inputs=FRAMES)
    assert (model.first.out_channels, model.hidden.out_channels) == (8, 6)
    assert any("WrittenNoise" in item.reason and "(in training mode)" in item.reason for item in report.protected)
    model(FRAMES)


class ManyWrittenSizes(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList([nn.Linear(6 if index == 0 else 8, 8) for index in range(12)])
        self.hidden, self.head = nn.Linear(8, 10), nn.Linear(10, 2)

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            x = layer(x).relu()
            if self.training:
                x = x + torch.randn(len(x), 8)
        return self.head(self.hidden(x))


def test_sizes_written_into_training_code_do_not_use_up_the_forwards_of_a_step() -> None:
    model = ManyWrittenSizes()
    gsprune.prune_step(model, 0.5, example_inputs=X)
    assert [layer.out_features for layer in (*model.layers, model.hidden)] == [8] * 12 + [5]
    model(X)


class Consistency(nn.Module):
    """Two projections whose outputs only a loss in training compares."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(6, 16), nn.Linear(6, 16)
        self.heads = nn.ModuleList([nn.Linear(16, 3), nn.Linear(16, 3)])

    def forward(self, x: Tensor) -> Tensor:
        first, second = self.first(x), self.second(x)
        if self.training:
            self.loss = (first - second).square().mean()
        return self.heads[0](first) + self.heads[1](second)


def test_channels_that_only_training_compares_are_removed_together() -> None:
    model = Consistency()
    report = gsprune.prune_step(model, 0.5, example_inputs=X)
    assert torch.equal(report.removed["first.weight"][0], report.removed["second.weight"][0])
    assert gsprune.trace(Consistency(), X).inexact == ()  # the mean is no part of the output


class Targets(nn.Module):
    """A network whose forward needs targets in training."""

    def __init__(self) -> None:
        super().__init__()
        self.hidden, self.head = nn.Linear(6, 8), nn.Linear(8, 2)

    def forward(self, x: Tensor, targets: Tensor | None = None) -> Tensor:
        out = self.head(self.hidden(x).relu())
        return F.mse_loss(out, targets) if self.training else out


def test_a_network_whose_training_needs_other_inputs_is_pruned_as_in_eval_mode() -> None:
    model = Targets()
    assert gsprune.trace(model, X).training_trail == ()
    gsprune.prune_step(model, 0.5, example_inputs=X)
    assert model.hidden.out_features == 4


class Counting(nn.Module):
    """A network whose training forward changes buffers, attributes and weights, and draws random numbers."""

    def __init__(self) -> None:
        super().__init__()
        self.hidden, self.norm, self.head = nn.Linear(6, 8), nn.BatchNorm1d(8), nn.Linear(8, 2)
        self.teacher = nn.Linear(6, 3).requires_grad_(False)
        self.register_buffer("steps", torch.zeros(()))
        self.calls, self.interrupts = 0, False

    def forward(self, x: Tensor) -> Tensor:
        if self.training:
            if self.interrupts and self.hidden.out_features < 8:
                raise KeyboardInterrupt
            self.calls += 1
            self.steps += 1
            self.teacher.weight.data.mul_(0.9)
            x = x + torch.rand(()) * random.random() * np.random.random()
        norm = self.norm
        x = F.batch_norm(self.hidden(x), norm.running_mean, norm.running_var, norm.weight, norm.bias, self.training)
        return self.head(x.relu()) + self.teacher(x.new_zeros(len(x), 6)).sum()


def test_forwards_in_training_mode_leave_no_traces() -> None:
    model = Counting()
    model(X)
    before = copy.deepcopy(model.state_dict())
    states = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].tolist()
    report = gsprune.prune_step(model, 0.5, example_inputs=X)
    assert report.changed
    assert gsprune.trace(model).training_trail
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, report.slice(name, before[name])), name
    assert model.calls == 1
    assert all(module.training for module in model.modules())
    assert torch.equal(states[0], torch.get_rng_state())
    assert states[1:] == (random.getstate(), np.random.get_state()[1].tolist())


def test_an_interrupt_of_the_check_in_training_mode_leaves_everything_as_it_was() -> None:
    model = Counting()
    model.interrupts = True
    model(X).sum().backward()
    before = snapshot(model)
    with pytest.raises(KeyboardInterrupt):
        gsprune.prune_step(model, 0.5, example_inputs=X)
    assert snapshot(model) == before


class NoMode(nn.Sequential):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x)


class NestedMode(NoMode):
    @property
    def mode(self) -> Callable[[], bool]:
        return lambda: self.training


def test_only_code_of_the_user_that_depends_on_the_mode_counts() -> None:
    layers = nn.Linear(6, 8), nn.BatchNorm1d(8), nn.Dropout(), nn.Linear(8, 2)
    assert not reads_training(nn.Sequential(*layers), None)
    assert not reads_training(NoMode(*layers), None)
    assert reads_training(nn.Sequential(NestedMode(*layers)), None)
    assert reads_training(NoMode(*layers), lambda model, x: model(x) if model.training else x)
    assert gsprune.trace(NoMode(*layers), X).training_trail == ()
