"""Parameters and attributes that a forward writes to are as before after every forward of gsprune's own."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable

import pytest
import torch
from snapshots import snapshot
from torch import Tensor, nn

import gsprune

X = torch.randn(8, 4, generator=torch.Generator().manual_seed(1))

Update = Callable[[list[nn.Parameter], list[nn.Parameter]], None]


def in_place(own: list[nn.Parameter], average: list[nn.Parameter]) -> None:
    for mine, its in zip(own, average, strict=True):
        its.mul_(0.9).add_(mine, alpha=0.1)


def in_place_on_data(own: list[nn.Parameter], average: list[nn.Parameter]) -> None:
    for mine, its in zip(own, average, strict=True):
        its.data.mul_(0.9).add_(mine.data, alpha=0.1)


def new_data(own: list[nn.Parameter], average: list[nn.Parameter]) -> None:
    for mine, its in zip(own, average, strict=True):
        its.data = its.data * 0.9 + mine.data * 0.1


def of_a_view(own: list[nn.Parameter], average: list[nn.Parameter]) -> None:
    for mine, its in zip(own, average, strict=True):
        its.view(-1)[:].lerp_(mine.view(-1), 0.1)


def of_a_list(own: list[nn.Parameter], average: list[nn.Parameter]) -> None:
    torch._foreach_lerp_(average, own, 0.1)


def by_out(own: list[nn.Parameter], average: list[nn.Parameter]) -> None:
    for mine, its in zip(own, average, strict=True):
        torch.lerp(its, mine, 0.1, out=its.data)


class Momentum(nn.Module):
    """An encoder and its moving average, which every forward updates."""

    def __init__(self, update: Update = in_place) -> None:
        super().__init__()
        self.update = update
        torch.manual_seed(0)
        self.query = nn.Sequential(nn.Linear(4, 16), nn.ReLU(), nn.Linear(16, 8))
        torch.manual_seed(1)
        self.key = nn.Sequential(nn.Linear(4, 16), nn.ReLU(), nn.Linear(16, 8)).requires_grad_(False)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        with torch.no_grad():
            self.update(list(self.query.parameters()), list(self.key.parameters()))
        return self.query(x), self.key(x)


@pytest.mark.parametrize("update", [in_place, in_place_on_data, new_data, by_out])
def test_parameters_that_the_forward_writes_to_are_restored(update: Update) -> None:
    model = Momentum(update)
    before = snapshot(model)["tensors"]
    gsprune.trace(model, X)
    assert snapshot(model)["tensors"] == before
    gsprune.prune_step(model, 0.5, example_inputs=X, dry_run=True)
    assert snapshot(model)["tensors"] == before
    values = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    report = gsprune.prune_step(model, 0.5)
    assert model.key[0].out_features == 8
    for name, parameter in model.named_parameters():
        assert torch.equal(parameter, report.slice(name, values[name])), name


@pytest.mark.parametrize("update", [of_a_view, of_a_list])
def test_parameters_are_restored_after_a_write_that_no_rule_follows(update: Update) -> None:
    model = Momentum(update)
    before = snapshot(model)["tensors"]
    gsprune.trace(model, X)
    assert snapshot(model)["tensors"] == before


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model))])
def test_copies_of_a_traced_model_are_restored_too(copied: Callable[[nn.Module], nn.Module]) -> None:
    original = Momentum()
    gsprune.prune_step(original, 0.0, example_inputs=X)
    model = copied(original)
    values = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    report = gsprune.prune_step(model, 0.5)
    assert report.changed
    for name, parameter in model.named_parameters():
        assert torch.equal(parameter, report.slice(name, values[name])), name


def test_a_compensated_step_restores_them() -> None:
    model = Momentum()
    values = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    calibration = torch.randn(64, 4)
    report = gsprune.prune_step(
        model, 0.5, example_inputs=X, importance="activation", compensate="linear", calibration=calibration
    )
    for name in ("key.0.weight", "key.0.bias", "query.0.weight"):
        assert torch.equal(model.get_parameter(name), report.slice(name, values[name])), name


def test_a_parameter_that_no_forward_writes_to_is_not_copied(monkeypatch: pytest.MonkeyPatch) -> None:
    model = nn.Sequential(nn.Linear(4, 16), nn.ReLU(inplace=True), nn.Linear(16, 2))
    monkeypatch.setattr(Tensor, "clone", None)
    graph = gsprune.trace(model, X)
    assert graph.written == ()


class Stateful(nn.Module):
    """A network that keeps a state between calls, in plain attributes."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.net = nn.Sequential(nn.Linear(4, 16), nn.ReLU(), nn.Linear(16, 4))
        self.trace, self.seen = torch.ones(4), torch.zeros(2)
        self.rows, self.last = self.trace.expand(3, 4), self.net(X)

    def forward(self, x: Tensor) -> Tensor:
        self.trace.mul_(0.9).add_(x.detach().mean(0), alpha=0.1)
        self.seen[1:] += 1
        self.last = self.net(x + self.trace)
        return self.last


@pytest.mark.parametrize("copied", [lambda model: model, lambda model: pickle.loads(pickle.dumps(model))])
def test_attributes_that_the_forward_writes_to_are_restored(copied: Callable[[nn.Module], nn.Module]) -> None:
    model = Stateful()
    last = model.last

    def assert_restored(stateful: nn.Module) -> None:
        assert torch.equal(stateful.trace, torch.ones(4))
        assert torch.equal(stateful.seen, torch.zeros(2))

    gsprune.trace(model, X)
    assert_restored(model)
    assert model.last is last
    gsprune.prune_step(model, 0.0, example_inputs=X)
    assert_restored(model)
    model.last = None  # a result with a graph cannot be pickled
    model = copied(model)
    assert gsprune.prune_step(model, 0.5, compensate="linear", calibration=torch.randn(64, 4)).changed
    assert_restored(model)
    model.trace, model.last = torch.ones(4), None  # a new state, as at the beginning of an episode
    assert gsprune.prune_step(model, 0.75, compensate="linear", calibration=torch.randn(64, 4)).changed
    assert_restored(model)


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors")
def test_a_nested_tensor_may_be_in_an_attribute() -> None:
    model = nn.Sequential(nn.Linear(4, 16), nn.ReLU(), nn.Linear(16, 4))
    model.parts = torch.nested.nested_tensor([torch.ones(2), torch.ones(3)])
    assert gsprune.prune_step(model, 0.5, example_inputs=X).changed
