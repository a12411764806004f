"""`compact` removes exactly the units whose removal changes nothing (invariant 7)."""

from __future__ import annotations

import copy
from collections.abc import Callable

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from compensated import duplicate_units
from hypothesis import given
from hypothesis import strategies as st
from random_networks import RandomNet, example, networks, outputs_of
from snapshots import snapshot
from torch import Tensor, nn

import gsprune
from gsprune.compensation.targets import TargetWeight
from gsprune.rewrite.tensors import canonical_tensors

WIDTH = 6


@given(networks(), st.floats(0.5, 0.98), st.integers(0, 2**20))
def test_sparse_networks_compute_the_same_when_compacted(net: RandomNet, sparsity: float, seed: int) -> None:
    net.eval()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in net.parameters():
            if parameter.ndim > 1:
                parameter.mul_(torch.rand(parameter.shape, generator=generator) > sparsity)
    small, inputs = copy.deepcopy(net), example(net, 8, 3)
    report = gsprune.compact(small, example_inputs=example(net))
    assert report.changed == (report.params_after < report.params_before)
    with torch.no_grad():
        for got, expected in zip(outputs_of(small, inputs), outputs_of(net, inputs), strict=True):
            torch.testing.assert_close(got, expected, rtol=1e-10, atol=1e-10)
    assert not gsprune.compact(small).changed


@given(networks(), st.integers(0, 2**20))
def test_units_that_make_nothing_and_that_nobody_reads_go_from_any_network(net: RandomNet, seed: int) -> None:
    net.eval()
    graph, random = gsprune.trace(net, example(net)), np.random.default_rng(seed)
    tensors, dead = canonical_tensors(net), {}
    with torch.no_grad():
        for group in graph.groups:
            dead[group.name] = np.flatnonzero(random.random(group.num_units) < 0.4)[: group.num_units - 1]
            for member in group.members:
                if member.role == "in":
                    positions = torch.from_numpy(np.flatnonzero(np.isin(member.units, dead[group.name])))
                    tensors[member.tensor].index_fill_(member.axis, positions, 0)
    small, inputs = copy.deepcopy(net), example(net, 8, 3)
    report = gsprune.compact(small, example_inputs=example(net))
    assert report.compaction is not None
    for change in report.groups:
        group = graph.group(change.name)
        plain = all(member.tensor not in report.compaction.unclear for member in group.members)
        if plain and group.name not in graph.mixed and any(member.role == "in" for member in group.members):
            assert change.after <= group.width - len(dead[group.name]) * group.width_per_unit
    with torch.no_grad():
        for got, expected in zip(outputs_of(small, inputs), outputs_of(net, inputs), strict=True):
            torch.testing.assert_close(got, expected, rtol=1e-10, atol=1e-10)


@given(networks(), st.integers(0, 2**20))
def test_duplicates_are_no_constants(net: RandomNet, seed: int) -> None:
    net.eval()
    graph = gsprune.trace(net, example(net))
    duplicate_units(net, graph, {group.name: [(0, u) for u in range(1, group.num_units)] for group in graph.groups})
    before = gsprune.compact(copy.deepcopy(net), example_inputs=example(net), dry_run=True)
    assert before.compaction is not None
    assert not before.compaction.dormant
    del seed


class Consumed(nn.Module):
    def __init__(self, consumer: nn.Module, between: Callable[[Tensor], Tensor] = torch.relu) -> None:
        super().__init__()
        self.first, self.consumer, self.between = nn.Conv2d(3, WIDTH, 1), consumer, between

    def forward(self, x: Tensor) -> Tensor:
        return self.consumer(self.between(self.first(x)))


def network(consumer: nn.Module, between: Callable[[Tensor], Tensor] = torch.relu) -> Consumed:
    """A network whose units 1 and 4 are the constant 0.5, and unit 3 the constant 0 behind a ReLU."""
    torch.manual_seed(0)
    net = Consumed(consumer, between).double().eval()
    with torch.no_grad():
        net.first.weight[[1, 3, 4]] = 0
        net.first.bias[[1, 3, 4]] = torch.tensor([0.5, -1.0, 0.5], dtype=torch.float64)
    return net


X = torch.randn(16, 3, 5, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(1))

CONSUMERS: dict[str, tuple[nn.Module, list[int]]] = {
    "convolution": (nn.Conv2d(WIDTH, 4, 3), [1, 3, 4]),
    "grouped": (nn.Sequential(nn.Conv2d(WIDTH, 4, 3), nn.ReLU(), nn.Conv2d(4, 4, 1, groups=2)), [1, 3, 4]),
    "zero-padded": (nn.Conv2d(WIDTH, 4, 3, padding=1), [3]),
    "circular": (nn.Conv2d(WIDTH, 4, 3, padding=1, padding_mode="circular"), [1, 3, 4]),
    "without a bias": (nn.Conv2d(WIDTH, 4, 3, bias=False), [3]),
    "batch norm takes it": (nn.Sequential(nn.Conv2d(WIDTH, 4, 3, bias=False), nn.BatchNorm2d(4)), [1, 3, 4]),
    "flattened": (nn.Sequential(nn.Flatten(), nn.Linear(WIDTH * 25, 4)), [1, 3, 4]),
    "pooled": (nn.Sequential(nn.AvgPool2d(2), nn.Conv2d(WIDTH, 4, 2)), [1, 3, 4]),
    "pooled with padding": (nn.Sequential(nn.AvgPool2d(3, padding=1), nn.Conv2d(WIDTH, 4, 1)), [3]),
    "transposed": (nn.ConvTranspose2d(WIDTH, 4, 3), [3]),
    "transposed depthwise": (
        nn.Sequential(nn.ConvTranspose2d(WIDTH, WIDTH, 1, groups=WIDTH), nn.Conv2d(WIDTH, 4, 3)),
        [1, 3, 4],
    ),
    "batch norm over a flattened picture": (
        nn.Sequential(nn.Conv2d(WIDTH, 4, 3, bias=False), nn.Flatten(), nn.BatchNorm1d(36)),
        [3],
    ),
    "transposed with gaps": (nn.ConvTranspose2d(WIDTH, 4, 1, stride=2), [3]),
    "group norm": (nn.Sequential(nn.GroupNorm(2, WIDTH), nn.Conv2d(WIDTH, 4, 1)), []),
}


@pytest.mark.parametrize("name", CONSUMERS)
def test_constants_go_where_a_bias_can_take_them(name: str) -> None:
    consumer, expected = CONSUMERS[name]
    net = network(consumer)
    output = net(X)
    report = gsprune.compact(net, example_inputs=X[:2])
    removed = {group.name: group.removed.tolist() for group in report.groups}
    assert removed["first"] == expected
    torch.testing.assert_close(net(X), output, rtol=1e-12, atol=1e-12)


def test_constants_that_padding_keeps_are_reported() -> None:
    report = gsprune.compact(network(nn.Conv2d(WIDTH, 4, 3, padding=1)), example_inputs=X[:2])
    assert report.compaction is not None
    assert report.compaction.bordered["first"].tolist() == [1, 4]
    assert "2 constant units of first must stay" in str(report)


def test_constants_without_a_bias_are_reported() -> None:
    report = gsprune.compact(network(nn.Conv2d(WIDTH, 4, 3, bias=False)), example_inputs=X[:2])
    assert report.compaction is not None
    assert report.compaction.without_bias["first"].tolist() == [1, 4]
    assert not report.compaction.bordered
    assert "2 constant units of first must stay: no bias takes their constants" in str(report)


def test_tensors_that_cannot_be_examined_are_reported() -> None:
    class Ensemble(nn.Module):
        def __init__(self, inputs: int, outputs: int) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.randn(2, inputs, outputs))

        def forward(self, x: Tensor) -> Tensor:
            return x @ self.weight

    net = nn.Sequential(Ensemble(3, 6), nn.ReLU(), Ensemble(6, 1))
    report = gsprune.compact(net, example_inputs=torch.randn(2, 5, 3))
    assert "cannot examine the channels of 2.weight (aten.bmm reads it)" in str(report)


def test_units_that_only_removed_units_read_go_too() -> None:
    net = nn.Sequential(nn.Linear(4, 5), nn.ReLU(), nn.Linear(5, 6), nn.ReLU(), nn.Linear(6, 2)).double()
    with torch.no_grad():
        net[4].weight[:, 2] = 0  # nobody reads unit 2 of the second layer,
        net[2].weight[:, 3] = 0
        net[2].weight[2, 3] = 1  # which alone reads unit 3 of the first
    x = torch.randn(7, 4, dtype=torch.float64)
    expected = net(x)
    report = gsprune.compact(net, example_inputs=x)
    assert [group.removed.tolist() for group in report.groups] == [[3], [2]]
    torch.testing.assert_close(net(x), expected, rtol=1e-12, atol=1e-12)


def test_the_last_unit_of_a_group_stays() -> None:
    net = network(nn.Conv2d(WIDTH, 4, 3))
    with torch.no_grad():
        net.first.weight.zero_()
    expected = net(X)
    gsprune.compact(net, example_inputs=X[:2])
    assert net.first.out_channels == 1
    torch.testing.assert_close(net(X), expected, rtol=1e-12, atol=1e-12)


def test_dormant_units_need_calibration() -> None:
    net = network(nn.Conv2d(WIDTH, 4, 3))
    with torch.no_grad():
        net.first.bias[0] = -100  # never fires, but might
        net.first.weight[2] *= 1e-4  # hardly moves
    output = net(X)
    assert not {0, 2} & set(gsprune.compact(copy.deepcopy(net), example_inputs=X[:2]).groups[0].removed.tolist())
    nearly = copy.deepcopy(net)
    report = gsprune.compact(net, example_inputs=X[:2], calibration=X)
    assert report.compaction is not None
    assert report.compaction.dormant["first"].tolist() == [0]
    torch.testing.assert_close(net(X), output, rtol=1e-12, atol=1e-12)
    report = gsprune.compact(nearly, example_inputs=X[:2], calibration=X, tolerance=0.01)
    assert report.compaction is not None
    assert report.compaction.dormant["first"].tolist() == [0, 2]
    torch.testing.assert_close(nearly(X), output, rtol=0, atol=0.01)


def test_without_a_tolerance_the_outputs_on_the_calibration_data_are_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    net = network(nn.Conv2d(WIDTH, 4, 3))
    before = snapshot(net)["tensors"]
    monkeypatch.setattr(TargetWeight, "add_constant", lambda self, shift: None)
    with pytest.raises(gsprune.RewriteError, match="removing constant units changed the output"):
        gsprune.compact(net, example_inputs=X[:2], calibration=X)
    assert snapshot(net)["tensors"] == before
    assert gsprune.compact(net, example_inputs=X[:2], calibration=X, tolerance=0.1).changed


def test_a_product_that_the_network_returns_has_no_place_for_a_constant() -> None:
    class Features(nn.Sequential):
        def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
            y = self[0](x)
            return y[:, :2], self[1](y)

    net = network(Features(nn.Conv2d(WIDTH, 4, 3, bias=False), nn.BatchNorm2d(4)))
    output = net(X)
    gsprune.compact(net, example_inputs=X[:2])
    torch.testing.assert_close(net(X), output, rtol=1e-12, atol=1e-12)
    assert net.first.out_channels == WIDTH - 1


def test_other_operations_on_the_calibration_data_leave_no_place_for_a_constant() -> None:
    def code(conv: nn.Module, x: Tensor) -> Tensor:
        return conv(x) if len(x) > 2 else F.conv2d(x, conv.weight) + 1

    def forward(net: Consumed, x: Tensor) -> Tensor:
        return code(net.consumer, torch.relu(net.first(x)))

    net = network(nn.Conv2d(WIDTH, 4, 3))
    output = forward(net, X)
    gsprune.compact(net, example_inputs=X[:2], forward=forward, calibration=X)
    torch.testing.assert_close(forward(net, X), output, rtol=1e-12, atol=1e-12)
    assert net.first.out_channels == WIDTH - 1


def test_code_that_depends_on_the_inputs_leaves_nothing_constant() -> None:
    net = network(nn.Conv2d(WIDTH, 4, 3), lambda h: h * float(h.sum() > 0))
    assert not gsprune.compact(net, example_inputs=X[:2]).compaction.constant


def test_a_bias_behind_a_branch_on_the_inputs_takes_only_constants_of_the_calibration_data() -> None:
    def forward(net: Consumed, x: Tensor) -> Tensor:
        y = F.conv2d(torch.relu(net.first(x)), net.consumer.weight)
        return y + net.consumer.bias[:, None, None] if x.sum() > 0 else y

    net = network(nn.Conv2d(WIDTH, 4, 3))
    outputs = [forward(net, X.abs()), forward(net, -X.abs())]
    report = gsprune.compact(net, example_inputs=X[:2].abs(), forward=forward)
    assert [group.removed.tolist() for group in report.groups] == [[3]]
    for x, output in zip((X.abs(), -X.abs()), outputs, strict=True):
        torch.testing.assert_close(forward(net, x), output, rtol=1e-12, atol=1e-12)
    assert gsprune.compact(net, calibration=X.abs()).changed
    torch.testing.assert_close(forward(net, X.abs()), outputs[0], rtol=1e-12, atol=1e-12)


def test_followers_and_the_optimizer_follow() -> None:
    net = network(nn.Conv2d(WIDTH, 4, 3))
    optimizer, target = torch.optim.Adam(net.parameters()), copy.deepcopy(net)
    net(X).sum().backward()
    with torch.no_grad():
        net.first.weight.grad[[1, 3, 4]] = 0
        net.first.bias.grad[[1, 3, 4]] = 0
    optimizer.step()
    output = target(X)
    gsprune.compact(net, optimizer=optimizer, followers=target, example_inputs=X[:2])
    torch.testing.assert_close(target(X), output, rtol=1e-12, atol=1e-12)
    assert optimizer.state[net.first.weight]["exp_avg"].shape == net.first.weight.shape == (3, 3, 1, 1)


def test_a_dry_run_and_bad_arguments_leave_the_network_alone() -> None:
    net = network(nn.Conv2d(WIDTH, 4, 3))
    before = snapshot(net)["tensors"]
    assert gsprune.compact(net, example_inputs=X[:2], dry_run=True).changed
    with pytest.raises(ValueError, match=r"`tolerance` is 0\.1, but there is no `calibration`"):
        gsprune.compact(net, tolerance=0.1)
    with pytest.raises(ValueError, match=r"`tolerance` must be .*got 1"):
        gsprune.compact(net, tolerance=1, calibration=X)
    with pytest.raises(ValueError, match="`compact` needs at least 16 examples"):
        gsprune.compact(net, calibration=X[:4])
    assert snapshot(net)["tensors"] == before
