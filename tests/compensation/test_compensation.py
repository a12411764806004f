"""Removal of channels that the others can stand in for changes no output (invariant 7)."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from compensated import duplicate_units, remove_units
from hypothesis import given, reject
from hypothesis import strategies as st
from random_networks import EXACT_KINDS, Block, RandomNet, example, networks, outputs_of, randomize
from snapshots import snapshot
from torch import Tensor, nn

import gsprune
from gsprune.compensation.sample import Sample
from gsprune.compensation.uses import Use
from gsprune.errors import RewriteError, TraceError

WIDTH = 6
REMOVED = [1, 3, 4]  # units; 0, 2 and 5 stay
# Weights that are read by other operations, or whose inputs lose channels along two axes, are left as they are.
SKIPPED_KINDS = {"Products", "Dynamic", "Cells", "Mixed", "Foreigner"}
# Duplicates are not without effect here: norms over channels, and products of two activations that sum over channels.
POPULATION_KINDS = {"Normalized", "Bilinear", "Attention", "Fused", "TiedBack"}
LINEAR_KINDS = tuple(kind for kind in EXACT_KINDS if kind not in POPULATION_KINDS)


def assert_equal_outputs(net: RandomNet, small: RandomNet, inputs: tuple[Tensor, ...]) -> None:
    with torch.no_grad():
        for got, expected in zip(outputs_of(small, inputs), outputs_of(net, inputs), strict=True):
            torch.testing.assert_close(got, expected, rtol=1e-9, atol=1e-9)


@given(networks(LINEAR_KINDS), st.integers(0, 2**20))
def test_duplicates_are_removed_exactly_from_any_network(net: RandomNet, seed: int) -> None:
    net.eval()
    graph = gsprune.trace(net, example(net))
    random = np.random.default_rng(seed)
    pairs: dict[str, list[tuple[int, int]]] = {}
    for group in graph.groups:
        duplicates = np.flatnonzero(random.random(group.num_units) < 0.5)[: group.num_units - 1]
        originals = np.setdiff1d(np.arange(group.num_units), duplicates)
        pairs[group.name] = [(int(random.choice(originals)), int(unit)) for unit in duplicates]
    duplicate_units(net, graph, pairs)
    small, inputs = copy.deepcopy(net), example(net, 32, 3)
    units = {name: [duplicate for _, duplicate in each] for name, each in pairs.items()}
    report = remove_units(small, units, example(net), [inputs])
    if report is None or report.skipped:
        reject()
    assert_equal_outputs(net, small, inputs)


@pytest.mark.parametrize("kind", LINEAR_KINDS)
@pytest.mark.parametrize("option", [0, 1, 2])
def test_duplicates_are_removed_exactly_from_every_kind_of_layer(kind: str, option: int) -> None:
    net = RandomNet((Block(kind, 4, option),), flatten=True, hidden=5).double().eval()
    randomize(net, option)
    graph = gsprune.trace(net, example(net))
    pairs = {g.name: [(0, unit) for unit in range(1, g.num_units, 2)] for g in graph.groups}
    duplicate_units(net, graph, pairs)
    small, inputs = copy.deepcopy(net), example(net, 32, 3)
    report = remove_units(
        small, {name: [unit for _, unit in each] for name, each in pairs.items()}, example(net), [inputs]
    )
    if kind in SKIPPED_KINDS and (report is None or report.skipped):
        return
    assert report is not None
    assert not report.skipped
    assert_equal_outputs(net, small, inputs)


# -- every kind of consumer behind units that are exact combinations of the kept ones ---------------------------------


class Consumed(nn.Module):
    """A first layer whose units 1, 3 and 4 depend on 0, 2 and 5, and a consumer."""

    def __init__(self, first: nn.Module, consumer: nn.Module, forward: Callable[..., Tensor] | None = None) -> None:
        super().__init__()
        self.first, self.consumer, self.call = first, consumer, forward

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        y = self.consumer(x) if self.call is None else self.call(self.consumer, x)
        return y[0] if isinstance(y, tuple) else y


class Pair(nn.Module):
    def __init__(self, one: nn.Module, two: nn.Module) -> None:
        super().__init__()
        self.one, self.two = one, two


def conv(dims: int = 2) -> nn.Module:
    return (nn.Conv1d, nn.Conv2d, nn.Conv3d)[dims - 1](3, WIDTH, 1)


def grouped(consumer: nn.Module) -> nn.Module:
    """Units are tied over two groups of channels."""
    return Consumed(nn.Conv2d(3, 2 * WIDTH, 1), consumer)


def tied(one: nn.Conv2d, two: nn.Conv2d) -> nn.Module:
    two.weight = one.weight
    return Pair(one, two)


NETWORKS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "linear": (lambda: Consumed(nn.Linear(3, WIDTH), nn.Linear(WIDTH, 4)), (64, 3)),
    "linear over tokens": (lambda: Consumed(nn.Linear(3, WIDTH), nn.Linear(WIDTH, 4)), (8, 9, 3)),
    "conv1d": (lambda: Consumed(conv(1), nn.Conv1d(WIDTH, 4, 3)), (8, 3, 9)),
    "conv2d": (lambda: Consumed(conv(), nn.Conv2d(WIDTH, 4, 3)), (8, 3, 7, 7)),
    "conv3d": (lambda: Consumed(conv(3), nn.Conv3d(WIDTH, 4, 2)), (8, 3, 4, 4, 4)),
    "strided": (lambda: Consumed(conv(), nn.Conv2d(WIDTH, 4, 3, stride=2)), (8, 3, 7, 7)),
    "dilated": (lambda: Consumed(conv(), nn.Conv2d(WIDTH, 4, 2, dilation=2)), (8, 3, 7, 7)),
    "circular": (lambda: Consumed(conv(), nn.Conv2d(WIDTH, 4, 3, padding=1, padding_mode="circular")), (8, 3, 7, 7)),
    "grouped": (lambda: grouped(nn.Conv2d(2 * WIDTH, 4, 3, groups=2)), (8, 3, 7, 7)),
    "depthwise, then dense": (
        lambda: Consumed(nn.Sequential(conv(), nn.Conv2d(WIDTH, WIDTH, 3, groups=WIDTH)), nn.Conv2d(WIDTH, 4, 1)),
        (8, 3, 7, 7),
    ),
    "transposed": (lambda: Consumed(conv(), nn.ConvTranspose2d(WIDTH, 4, 1)), (8, 3, 5, 5)),
    "transposed depthwise, then dense": (
        lambda: Consumed(
            nn.Sequential(conv(), nn.ConvTranspose2d(WIDTH, WIDTH, 1, groups=WIDTH)), nn.Conv2d(WIDTH, 4, 1)
        ),
        (8, 3, 7, 7),
    ),
    "flattened": (
        lambda: Consumed(conv(), nn.Sequential(nn.Flatten(), nn.Linear(WIDTH * 9, 4))),
        (64, 3, 3, 3),
    ),
    "batch norm takes the constant": (
        lambda: Consumed(conv(), nn.Sequential(nn.Conv2d(WIDTH, 4, 3, bias=False), nn.BatchNorm2d(4))),
        (8, 3, 7, 7),
    ),
    "behind a batch norm": (
        lambda: Consumed(nn.Sequential(conv(), nn.BatchNorm2d(WIDTH)), nn.Conv2d(WIDTH, 4, 3)),
        (8, 3, 7, 7),
    ),
    "attention": (
        lambda: Consumed(
            nn.Linear(3, WIDTH),
            nn.MultiheadAttention(8, 2, kdim=WIDTH, vdim=WIDTH, batch_first=True),
            lambda attention, x: attention(x.new_ones(len(x), 2, 8), x, x)[0],
        ),
        (16, 5, 3),
    ),
    "lstm": (lambda: Consumed(nn.Linear(3, WIDTH), nn.LSTM(WIDTH, 4, batch_first=True)), (16, 5, 3)),
    "gru cell": (lambda: Consumed(nn.Linear(3, WIDTH), nn.GRUCell(WIDTH, 4)), (64, 3)),
    "two consumers": (
        lambda: Consumed(
            conv(), Pair(nn.Conv2d(WIDTH, 4, 3), nn.Conv2d(WIDTH, 4, 3)), lambda pair, x: pair.one(x) + pair.two(x)
        ),
        (8, 3, 7, 7),
    ),
    "shared weight": (
        lambda: Consumed(
            conv(),
            tied(nn.Conv2d(WIDTH, 4, 3), nn.Conv2d(WIDTH, 4, 3)),
            lambda pair, x: pair.one(x)[:, :, 1:-1, 1:-1] * pair.two(F.avg_pool2d(x, 3, 1)),
        ),
        (8, 3, 7, 7),
    ),
    "concatenated": (
        lambda: Consumed(conv(), nn.Conv2d(2 * WIDTH, 4, 3), lambda c, x: c(torch.cat([x, x.flip(3)], 1))),
        (8, 3, 7, 7),
    ),
}

DEPENDENCIES: dict[str, Callable[[Tensor, Tensor], None]] = {}


def dependency(function: Callable[[Tensor, Tensor], None]) -> Callable[[Tensor, Tensor], None]:
    DEPENDENCIES[function.__name__] = function
    return function


@dependency
def zero(weight: Tensor, bias: Tensor) -> None:
    weight[REMOVED] = 0
    bias[REMOVED] = 0


@dependency
def linear(weight: Tensor, bias: Tensor) -> None:
    for rows in (weight, bias):
        rows[1], rows[3], rows[4] = rows[0] - 2 * rows[5], 0.5 * rows[2], rows[0] + rows[2] + rows[5]


@dependency
def constant(weight: Tensor, bias: Tensor) -> None:
    weight[REMOVED] = 0


@dependency
def affine(weight: Tensor, bias: Tensor) -> None:
    linear(weight, bias)
    bias[REMOVED] += 1


def network(name: str, depends: str) -> tuple[nn.Module, Tensor]:
    build, shape = NETWORKS[name]
    net = build().double().eval()
    randomize(net, 0)
    first = net.first[0] if isinstance(net.first, nn.Sequential) else net.first
    with torch.no_grad():
        for norm in (module for module in net.modules() if isinstance(module, nn.BatchNorm2d)):
            norm.weight.abs_().add_(0.3)  # a scale near 0 would have to be undone by large coefficients
        if name.endswith("depthwise, then dense"):  # equal kernels leave dependencies between channels as they are
            net.first[1].weight.copy_(net.first[1].weight[:1].clone())
        weight, bias = first.weight.data, first.bias.data
        for start in range(0, len(weight), WIDTH):  # each group of channels
            DEPENDENCIES[depends](weight[start : start + WIDTH], bias[start : start + WIDTH])
    return net, torch.randn(shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


@pytest.mark.parametrize("depends", DEPENDENCIES)
@pytest.mark.parametrize("name", NETWORKS)
def test_every_kind_of_consumer_reads_removed_channels_off_the_others(name: str, depends: str) -> None:
    net, x = network(name, depends)
    expected = net(x)
    name_of_first = next(g.name for g in gsprune.trace(net, x[:2]).groups if g.name.startswith("first"))
    report = remove_units(net, {name_of_first: REMOVED}, (x[:2],), [(x[: len(x) // 2],), (x[len(x) // 2 :],)])
    assert report is not None
    assert not report.skipped
    assert report.consumers
    assert all(consumer.explained > 1 - 1e-9 for consumer in report.consumers)
    torch.testing.assert_close(net(x), expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(
    ("consumer", "depends"),
    [
        (nn.Conv2d(WIDTH, 4, 3, padding=1), "linear"),
        (nn.ConvTranspose2d(WIDTH, 4, 3, stride=2, padding=1), "linear"),
        (nn.ConvTranspose2d(WIDTH, 4, 3, stride=2), "zero"),
    ],
    ids=["padded", "transposed", "transposed, zero"],
)
def test_consumers_in_which_a_constant_has_no_exact_place(consumer: nn.Module, depends: str) -> None:
    net = Consumed(conv(), consumer).double().eval()
    randomize(net, 0)
    with torch.no_grad():
        net.first.bias.zero_()
        DEPENDENCIES[depends](net.first.weight.data, net.first.bias.data)
    x = torch.randn(8, 3, 5, 5, dtype=torch.float64)
    expected = net(x)
    assert remove_units(net, {"first": REMOVED}, (x,)) is not None
    torch.testing.assert_close(net(x), expected, rtol=1e-9, atol=1e-9)


def test_a_flattened_picture_above_the_limit_is_compensated_per_channel(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gsprune.compensation.consumer.MAX_COLUMNS", 20)
    net, x = network("flattened", "affine")
    expected = net(x)
    assert remove_units(net, {"first": REMOVED}, (x,)) is not None
    torch.testing.assert_close(net(x), expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("groups", [1, 4])
@pytest.mark.parametrize("layer", [nn.Conv2d, nn.ConvTranspose2d])
@pytest.mark.parametrize("width", [2, 3])
def test_a_convolution_with_one_input_per_group_left_is_compensated(
    width: int, layer: type[nn.Module], groups: int
) -> None:
    consumer = layer(groups * width, 4, 3, padding=1, groups=groups, bias=False)
    net = Consumed(nn.Conv2d(3, groups * width, 1), consumer).double().eval()
    randomize(net, 0)
    with torch.no_grad():
        for start in range(0, groups * width, width):  # all units of a group are multiples of its first one
            for tensor in (net.first.weight, net.first.bias):
                tensor[start + 1 : start + width] = -2 * tensor[start]
    x = torch.randn(8, 3, 5, 5, dtype=torch.float64)
    expected = net(x)
    (group,) = gsprune.trace(net, x).groups
    report = remove_units(net, {group.name: range(1, group.num_units)}, (x,))
    assert report is not None
    assert not report.skipped
    torch.testing.assert_close(net(x), expected, rtol=1e-9, atol=1e-9)


# -- prune_step -------------------------------------------------------------------------------------------------------


def small_agent() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 16, 3, padding=1), nn.ReLU(), nn.Conv2d(16, 16, 3), nn.ReLU(), nn.Flatten(), nn.Linear(256, 5)
    )


def frames(count: int = 128, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return F.avg_pool2d(torch.randn(count, 3, 8, 8, generator=generator), 3, 1)


def error_after_step(sparsity: float = 0.5, **options: Any) -> float:
    net = small_agent()
    expected = net(frames(64, 1)).detach()
    gsprune.prune_step(net, sparsity, example_inputs=frames(2), **options)
    return float((net(frames(64, 1)).detach() - expected).square().mean())


def test_compensated_networks_stay_nearer_to_the_dense_one() -> None:
    errors = [error_after_step(compensate=mode, calibration=frames()) for mode in ("none", "bias", "linear")]
    assert errors[2] < errors[1] < errors[0]


def wide_network(duplicates: bool = False) -> nn.Module:
    """Its last layers read 64 and 96 inputs once per picture, behind a mean over positions."""
    torch.manual_seed(0)
    act = nn.Tanh if duplicates else nn.ReLU  # a ReLU that is zero on all calibration data fires on other data
    net = nn.Sequential(
        *(nn.Conv2d(3, 64, 3), act(), nn.Conv2d(64, 48, 1), act(), nn.AdaptiveAvgPool2d(1), nn.Flatten()),
        *(nn.Linear(48, 96), act(), nn.Linear(96, 5)),
    )
    with torch.no_grad():
        for layer in (net[0], net[2], net[6]) if duplicates else ():
            half = len(layer.weight) // 2
            layer.weight[half:], layer.bias[half:] = layer.weight[:half].clone(), layer.bias[:half].clone()
    return net


def test_networks_stay_nearer_to_the_dense_one_with_fewer_pictures_than_inputs() -> None:
    errors = []
    for mode in ("bias", "linear"):
        net = wide_network()
        expected = net(frames(256, 1)).detach()
        gsprune.prune_step(net, 0.3, example_inputs=frames(2), compensate=mode, calibration=frames(20))
        errors.append(float((net(frames(256, 1)).detach() - expected).square().mean()))
    assert errors[1] < errors[0]


def test_duplicates_are_removed_exactly_with_fewer_pictures_than_inputs() -> None:
    net = wide_network(duplicates=True).double()
    x, other = frames(20)[:, :, :3, :3].double(), frames(64, 1).double()
    expected = net(other).detach()
    # One position per picture: the pointwise convolution, too, reads more inputs than there are samples.
    units = {group.name: range(group.num_units // 2, group.num_units) for group in gsprune.trace(net, x).groups}
    report = remove_units(net, units, (x,))
    assert report is not None
    assert len(report.consumers) == 3
    torch.testing.assert_close(net(other), expected, rtol=1e-9, atol=1e-9)


def test_batches_of_calibration_data_may_come_as_any_iterable() -> None:
    whole = error_after_step(compensate="linear", calibration=(frames(),))
    parts = error_after_step(compensate="linear", calibration=(batch for batch in frames().split(32)))
    assert whole == error_after_step(compensate="linear", calibration=frames())
    assert parts < 1.5 * whole


class Experts(nn.Module):
    """Each sample goes to the expert whose number is its last input."""

    def __init__(self, layer: Callable[[int, int], nn.Module]) -> None:
        super().__init__()
        self.first = nn.Linear(3, WIDTH)
        self.experts = nn.ModuleList(nn.Sequential(layer(WIDTH, WIDTH), nn.ReLU(), layer(WIDTH, 4)) for _ in range(3))

    def forward(self, x: Tensor) -> Tensor:
        h, y = self.first(x), x.new_zeros(len(x), 4)
        for number, expert in enumerate(self.experts):
            (rows,) = torch.where(x[:, -1] == number)
            picked = h[rows] if isinstance(expert[0], nn.Linear) else h[rows, :, None]
            y = y.index_add(0, rows, expert(picked).reshape(len(rows), 4))
        return y


@pytest.mark.parametrize("layer", [nn.Linear, lambda inputs, outputs: nn.Conv1d(inputs, outputs, 1)])
def test_an_expert_without_samples_counts_as_not_reached(layer: Callable[[int, int], nn.Module]) -> None:
    net = Experts(layer).double().eval()
    randomize(net, 0)
    with torch.no_grad():
        linear(net.first.weight, net.first.bias)
    x = torch.randn(48, 3, dtype=torch.float64)
    x[:, -1] = torch.arange(48) % 2
    expected = net(x)
    report = remove_units(copy.deepcopy(net), {"first": REMOVED}, (x,), [(x[:24],), (x[24:],)])
    assert report is not None
    assert report.skipped == {"experts.2.0.weight": "the calibration data does not reach it"}
    assert gsprune.compact(copy.deepcopy(net), example_inputs=x, calibration=x).compaction is not None
    batches = x[:24].clone(), x[24:].clone()
    batches[0][:, -1], batches[1][:, -1] = 0, 1
    expected = [net(batch) for batch in batches]
    report = remove_units(net, {"first": REMOVED}, (x,), [(batch,) for batch in batches])
    assert report is not None
    assert [consumer.weight for consumer in report.consumers] == ["experts.0.0.weight", "experts.1.0.weight"]
    for batch, output in zip(batches, expected, strict=True):
        torch.testing.assert_close(net(batch), output, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("expert", [nn.Linear(WIDTH, 4), nn.Conv1d(WIDTH, 4, 1), nn.Conv1d(WIDTH, 8, 1)])
def test_samples_that_the_pruned_network_routes_otherwise_are_not_compared_with_others(expert: nn.Module) -> None:
    class Sorted(nn.Module):
        """A layer that reads the samples in the order of their scores."""

        def __init__(self) -> None:
            super().__init__()
            self.first, self.gate, self.expert, self.is_sorted = nn.Linear(3, WIDTH), nn.Linear(WIDTH, 1), expert, True

        def forward(self, x: Tensor) -> Tensor:
            h = self.first(x).relu()
            rows = self.gate(h)[:, 0].argsort()
            h = h[rows] if self.is_sorted else h
            return self.expert(h if isinstance(expert, nn.Linear) else h[:, :, None])

    net, x = Sorted().double().eval(), torch.randn(512, 3, dtype=torch.float64)
    randomize(net, 0)
    reference = copy.deepcopy(net)
    reference.is_sorted = False
    explained = []
    for each in (net, reference):
        report = remove_units(each, {"first": REMOVED}, (x,))
        assert report is not None
        explained.append({consumer.weight: consumer.explained for consumer in report.consumers}["expert.weight"])
    assert explained[0] == pytest.approx(explained[1], abs=1e-6)


def test_a_mixture_of_kernels_is_reported_as_not_compensated() -> None:
    class Mixture(nn.Conv2d):
        def __init__(self) -> None:
            super().__init__(WIDTH, 4, 3)
            self.kernels = nn.Parameter(torch.randn(2, *self.weight.shape))

        def forward(self, x: Tensor) -> Tensor:
            shares = x.mean((1, 2, 3)).softmax(0)[:2]
            return F.conv2d(x, (shares.view(2, 1, 1, 1, 1) * self.kernels).sum(0), self.bias)

    net, x = Consumed(conv(), Mixture()).double(), torch.randn(16, 3, 5, 5, dtype=torch.float64)
    report = gsprune.prune_step(net, {"first": 0.5}, example_inputs=x, compensate="linear", calibration=x)
    assert net.consumer.kernels.shape[2] == 3
    assert report.compensation is not None
    assert report.compensation.skipped == {
        "consumer.kernels": "the weight of aten.convolution is computed from it",
    }


def test_the_report_tells_what_is_explained() -> None:
    net = small_agent()
    report = gsprune.prune_step(net, 0.5, example_inputs=frames(2), compensate="linear", calibration=frames())
    assert report.compensation is not None
    assert [consumer.weight for consumer in report.compensation.consumers] == ["2.weight", "5.weight"]
    assert all(0 < consumer.explained <= 1 for consumer in report.compensation.consumers)
    assert str(report.compensation) in str(report)
    assert gsprune.prune_step(net, 0.6).compensation is None


def test_followers_that_equal_the_model_stay_equal_and_the_optimizer_follows() -> None:
    net = small_agent()
    optimizer = torch.optim.Adam(net.parameters())
    net(frames()).sum().backward()
    optimizer.step()
    equal = copy.deepcopy(net)
    gsprune.prune_step(
        net, 0.5, optimizer=optimizer, followers=[equal], example_inputs=frames(2), compensate="linear",
        calibration=frames(),
    )  # fmt: skip
    for ours, theirs in zip(net.parameters(), equal.parameters(), strict=True):
        assert torch.equal(ours, theirs)
    assert optimizer.state[net[5].weight]["exp_avg"].shape == net[5].weight.shape
    optimizer.step()


def by_position(matrix: torch.Tensor) -> torch.Tensor:
    """Scores that do not depend on the weights."""
    return torch.arange(len(matrix), 0.0, -1)


def without_forward(module: nn.Module) -> nn.Module:
    """A container with the tensors of a module, as TensorDictParams is one."""
    container = nn.Module()
    for name, child in module.named_children():
        container.add_module(name, without_forward(child))
    for name, parameter in module.named_parameters(recurse=False):
        container.register_parameter(name, parameter)
    return container


@pytest.mark.parametrize("wrap", [lambda module: module, without_forward])
def test_a_follower_gets_the_map_that_it_would_get_as_the_model(wrap: Callable[[nn.Module], nn.Module]) -> None:
    net, other = small_agent(), small_agent()
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    alone, follower = copy.deepcopy(other), wrap(copy.deepcopy(other))
    options: dict[str, Any] = {"compensate": "linear", "calibration": frames(), "importance": by_position}
    gsprune.prune_step(alone, 0.5, example_inputs=frames(2), **options)
    gsprune.prune_step(net, 0.5, example_inputs=frames(2), followers=[follower], **options)
    expected = list(alone.parameters())
    assert any(not torch.equal(theirs, ours) for theirs, ours in zip(expected, net.parameters(), strict=True))
    for theirs, ours in zip(expected, follower.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-6, atol=1e-7)


def test_a_follower_that_shares_layers_with_the_model_is_compensated_once() -> None:
    net = nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, 16), nn.ReLU(), nn.Linear(16, 3))
    follower = copy.deepcopy(net)
    follower[0], follower[2] = net[0], net[2]
    with torch.no_grad():
        follower[4].weight.add_(torch.randn(3, 16))
    alone, x = copy.deepcopy(net), torch.randn(256, 6)
    options: dict[str, Any] = {"example_inputs": x[:2], "compensate": "linear", "calibration": x}
    gsprune.prune_step(alone, 0.5, **options)
    gsprune.prune_step(net, 0.5, followers=[follower], **options)
    for ours, theirs in zip(net.parameters(), alone.parameters(), strict=True):
        assert torch.equal(ours, theirs)


def test_a_follower_that_ties_what_the_model_keeps_apart_leaves_the_model_its_tensors() -> None:
    net = nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, 6), nn.Linear(6, 6), nn.Linear(6, 6))
    follower = copy.deepcopy(net)
    follower[4] = follower[3]
    alone, x = copy.deepcopy(net), torch.randn(256, 6)
    options: dict[str, Any] = {"ignore": ["2", "3"], "example_inputs": x[:2], "compensate": "linear", "calibration": x}
    gsprune.prune_step(alone, 0.5, **options)
    gsprune.prune_step(net, 0.5, followers=[follower], **options)
    for ours, theirs in zip(net.parameters(), alone.parameters(), strict=True):
        assert torch.equal(ours, theirs)


def test_a_follower_of_another_dtype_gets_the_models_map() -> None:
    net = small_agent()
    follower = copy.deepcopy(net).double()
    options: dict[str, Any] = {"compensate": "linear", "calibration": frames(), "example_inputs": frames(2)}
    gsprune.prune_step(net, 0.5, followers=[follower], **options)
    for ours, theirs in zip(net.parameters(), follower.parameters(), strict=True):
        assert theirs.dtype is torch.float64
        torch.testing.assert_close(ours.double(), theirs, rtol=1e-5, atol=1e-6)


def test_a_follower_that_makes_nan_leaves_everything_as_it_was() -> None:
    net = small_agent()
    follower = copy.deepcopy(net)
    with torch.no_grad():
        follower[0].weight[0, 0, 0, 0] = float("nan")
    before = [parameter.detach().clone() for parameter in (*net.parameters(), *follower.parameters())]
    places = [parameter.data_ptr() for parameter in (*net.parameters(), *follower.parameters())]
    with pytest.raises(RewriteError, match="NaN or infinite on `calibration`; nothing was changed"):
        gsprune.prune_step(
            net, 0.5, followers=[follower], example_inputs=frames(2), compensate="linear", calibration=frames()
        )
    after = (*net.parameters(), *follower.parameters())
    assert places == [parameter.data_ptr() for parameter in after]
    for old, new in zip(before, after, strict=True):
        assert torch.equal(old.nan_to_num(), new.nan_to_num())


def test_dtype_and_training_mode_stay() -> None:
    net = small_agent().bfloat16().train()
    report = gsprune.prune_step(
        net, 0.5, example_inputs=frames(2).bfloat16(), compensate="linear", calibration=frames().bfloat16()
    )
    assert report.compensation is not None
    assert net.training
    assert {p.dtype for p in net.parameters()} == {torch.bfloat16}


@pytest.mark.parametrize(
    ("calibration", "error", "message"),
    [
        (torch.full((32, 3, 6, 6), float("nan")), RewriteError, "NaN or infinite on `calibration`; nothing was"),
        (torch.randn(3, 3, 6, 6), ValueError, "at least 16 examples of real inputs, and `calibration` has 3"),
        (None, ValueError, "and the example has 2: pass `calibration="),
        (7, TypeError, "`calibration` must be a tensor"),
        ([torch.randn(32, 3, 6, 6), 7], TypeError, "`calibration` must be a tensor"),
    ],
)
def test_unusable_calibration_data_is_an_error_that_changes_nothing(
    calibration: Any, error: type[Exception], message: str
) -> None:
    net = small_agent()
    before = snapshot(net)
    with pytest.raises(error, match=message):
        gsprune.prune_step(net, 0.5, example_inputs=frames(2), compensate="linear", calibration=calibration)
    assert snapshot(net) == before


def test_errors_of_the_watchers_are_not_blamed_on_the_calibration_data(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(use: Use, *args: object) -> None:
        raise IndexError("of gsprune's own code")

    net, x = network("linear", "linear")
    before = snapshot(net)["tensors"]
    monkeypatch.setattr(Sample, "__init__", fail)
    with pytest.raises(TraceError, match=r"cannot watch the forward of Consumed.*IndexError: of gsprune's own code"):
        gsprune.prune_step(net, 0.5, example_inputs=x, calibration=x, compensate="linear")
    with pytest.raises(ValueError, match=r"`calibration` must be what the forward of Consumed takes.*\(64, 2\)"):
        gsprune.prune_step(net, 0.5, example_inputs=x, calibration=x[:, :2], compensate="linear")
    assert snapshot(net)["tensors"] == before


def test_a_pruned_network_that_fails_on_the_calibration_data_is_named() -> None:
    def code(consumer: nn.Module, x: Tensor) -> Tensor:
        return consumer(x.view(-1, WIDTH) if len(x) > 4 else x)

    net = Consumed(nn.Linear(3, WIDTH), nn.Linear(WIDTH, 4), code)
    before = snapshot(net)["tensors"]
    with pytest.raises(RewriteError, match=r"the pruned network fails on `calibration`.*8x6 and 3x4"):
        gsprune.prune_step(
            net, 0.5, example_inputs=torch.randn(2, 3), calibration=torch.randn(16, 3), compensate="linear"
        )
    assert snapshot(net)["tensors"] == before


def test_unknown_modes_and_rescaling_are_refused() -> None:
    with pytest.raises(ValueError, match="`compensate` must be one of 'none', 'bias', 'linear', got 'lineal'; did you"):
        gsprune.prune_step(small_agent(), 0.5, compensate="lineal")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="both compensate for removed channels"):
        gsprune.prune_step(
            small_agent(), 0.5, example_inputs=frames(2), compensate="bias", calibration=frames(), rescale=True
        )
