"""A dry run with compensation predicts the change of the output and leaves everything as it was."""

from __future__ import annotations

import copy
from typing import Any, Literal

import pytest
import torch
from hypothesis import given, reject
from random_networks import RandomNet, example, loss_of, networks, outputs_of
from snapshots import snapshot
from torch import Tensor, nn

import gsprune
from gsprune.compensation.report import OutputChange

X = torch.randn(64, 3, 6, 6, generator=torch.Generator().manual_seed(0))


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.Conv2d(8, 12, 3, bias=False),
        nn.BatchNorm2d(12),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(12 * 16, 4),
    )


def change(net: nn.Module, small: nn.Module) -> float:
    with torch.no_grad():
        expected = net.eval()(X)
        return float((small.eval()(X) - expected).norm() / expected.norm())


@pytest.mark.parametrize("compensate", ["bias", "linear"])
def test_the_predicted_changes_are_those_of_the_steps(compensate: Literal["bias", "linear"]) -> None:
    net = network()
    options: dict[str, Any] = {"example_inputs": X[:2], "calibration": [X[:40], X[40:]]}
    dry = gsprune.prune_step(net, 0.5, compensate=compensate, dry_run=True, **options)
    small, sliced = copy.deepcopy(net), copy.deepcopy(net)
    wet = gsprune.prune_step(small, 0.5, compensate=compensate, **options)
    gsprune.prune_step(sliced, 0.5, **options)
    assert dry.output_change is not None
    assert dry.output_change.compensated == pytest.approx(change(net, small), rel=1e-5)
    assert dry.output_change.uncompensated == pytest.approx(change(net, sliced), rel=1e-5)
    assert dry.compensation == wet.compensation
    assert wet.output_change is None
    assert [g.removed.tolist() for g in dry.groups] == [g.removed.tolist() for g in wet.groups]


def test_a_dry_run_leaves_model_optimizer_and_follower_bit_for_bit_as_they_were() -> None:
    net = network()
    follower = copy.deepcopy(net)
    optimizer = torch.optim.Adam(net.parameters())
    for _ in range(2):
        optimizer.zero_grad()
        net(X).square().mean().backward()
        optimizer.step()
    net.train()
    before = snapshot(net, optimizer), snapshot(follower)
    before[0]["state"] = True  # a trace is remembered
    report = gsprune.prune_step(
        net,
        0.5,
        optimizer=optimizer,
        followers=follower,
        example_inputs=X[:2],
        compensate="linear",
        calibration=X,
        dry_run=True,
    )
    assert report.changed
    assert (snapshot(net, optimizer), snapshot(follower)) == before
    assert net[0].out_channels == 8
    optimizer.step()
    gsprune.prune_step(net, 0.5, optimizer=optimizer, followers=follower)  # goes on as if nothing had been
    assert follower[0].out_channels == net[0].out_channels == 4


@given(networks())
def test_any_network_is_as_before(net: RandomNet) -> None:
    loss_of(net.eval(), example(net)).backward()
    before, inputs = snapshot(net), example(net, 16, 3)
    expected = outputs_of(net, example(net))
    report = gsprune.prune_step(
        net, 0.5, example_inputs=example(net), compensate="linear", calibration=[inputs], dry_run=True
    )
    before["state"] = True
    assert snapshot(net) == before
    assert all(map(torch.equal, outputs_of(net, example(net)), expected))
    if not report.changed:
        reject()
    assert report.output_change is not None
    assert report.output_change.compensated >= 0


def test_nothing_to_remove_changes_nothing() -> None:
    report = gsprune.prune_step(network(), 0.0, example_inputs=X[:2], compensate="linear", calibration=X, dry_run=True)
    assert not report.changed
    assert report.output_change is None


def test_the_prediction_is_a_line_of_the_report() -> None:
    report = gsprune.prune_step(network(), 0.5, example_inputs=X[:2], compensate="linear", calibration=X, dry_run=True)
    lines = str(report).splitlines()
    assert str(report.output_change) in lines
    assert str(report.compensation) in lines
    assert str(OutputChange(0.5, 0.25)) == (
        "output on the calibration data would change by 25.00% (50.00% without compensation)"
    )


def test_a_width_that_code_relies_on_is_found_by_a_dry_run_too() -> None:
    class Fixed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one, self.two, self.three = nn.Linear(4, 8), nn.Linear(8, 8), nn.Linear(8, 2)

        def forward(self, x: Tensor) -> Tensor:
            x = torch.relu(self.one(x))
            assert x.shape[1] == 8
            return self.three(torch.relu(self.two(x)))

    x = torch.randn(32, 4)
    report = gsprune.prune_step(Fixed(), 0.5, example_inputs=x, compensate="linear", calibration=x, dry_run=True)
    assert {group.name: group.after for group in report.groups} == {"one": 8, "two": 4}
