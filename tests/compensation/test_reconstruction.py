"""The reconstruction score removes what the rest of the network can make up for."""

from __future__ import annotations

import copy
from collections.abc import Callable
from contextlib import suppress

import numpy as np
import pytest
import torch
from compensated import remove_units
from hypothesis import given, reject
from hypothesis import strategies as st
from random_networks import RandomNet, example, networks, outputs_of
from torch import Tensor, nn

import gsprune
from gsprune.backends import get_backend
from gsprune.compensation import Reconstruction
from gsprune.compensation.reconstruction import greedy_scores
from gsprune.compensation.removal_loss import RemovalLoss
from gsprune.errors import ScoreError
from gsprune.importance import ScoreSource
from gsprune.rewrite.tensors import canonical_tensors
from gsprune.tracing.example import Example
from gsprune.tracing.structure import Structure


def scores(model: nn.Module, *batches: tuple[Tensor, ...]) -> dict[str, np.ndarray]:
    """Group name -> scores."""
    graph = gsprune.trace(model, batches[0])
    source = ScoreSource(
        Structure(graph),
        frozenset(),
        canonical_tensors(model),
        get_backend("auto", torch.device("cpu")),
        model,
        calibration=[Example(batch) for batch in batches],
    )
    return {name: rows[0] for name, rows in Reconstruction().statistics(source).items()}


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


class TwoReaders(nn.Module):
    """Six hidden units that two layers read."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.one, self.two = nn.Linear(5, 6), nn.Linear(6, 3), nn.Linear(6, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.tanh(self.first(x))
        return torch.cat([self.one(x), self.two(x)], 1)


NETWORKS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "linear": (lambda: nn.Sequential(nn.Linear(5, 6), nn.Tanh(), nn.Linear(6, 3)), (400, 5)),
    "without bias": (lambda: nn.Sequential(nn.Linear(5, 6), nn.Sigmoid(), nn.Linear(6, 3, bias=False)), (400, 5)),
    "two readers": (TwoReaders, (400, 5)),
    "pointwise": (lambda: nn.Sequential(nn.Conv1d(5, 6, 3), nn.Tanh(), nn.Conv1d(6, 3, 1)), (80, 5, 9)),
    "transposed": (
        lambda: nn.Sequential(nn.Conv1d(5, 12, 3), nn.Tanh(), nn.ConvTranspose1d(12, 4, 1, groups=2)),
        (80, 5, 9),
    ),
    "grouped": (lambda: nn.Sequential(nn.Conv1d(5, 12, 3), nn.Tanh(), nn.Conv1d(12, 4, 1, groups=2)), (80, 5, 9)),
    "flattened": (lambda: nn.Sequential(nn.Conv1d(5, 6, 3), nn.Tanh(), nn.Flatten(), nn.Linear(18, 3)), (400, 5, 5)),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_the_cheapest_unit_is_the_one_whose_compensated_removal_changes_the_output_least(name: str) -> None:
    build, shape = NETWORKS[name]
    torch.manual_seed(0)
    model, x = build().double(), random(*shape)
    ((group, found),) = scores(model, (x,)).items()
    changes = []
    for unit in range(6):
        small = copy.deepcopy(model)
        remove_units(small, {group: [unit]}, (x,))
        change = (small(x) - model(x)).detach().square()
        changes.append(float(change.sum(1).mean()))
    assert len(found) == 6
    assert np.argmin(found) == np.argmin(changes)
    assert found.min() == pytest.approx(min(changes), rel=0.05, abs=1e-2 * max(changes))  # the ridge


def test_units_go_in_the_order_of_a_brute_force_search_over_all_consumers() -> None:
    units, samples = np.arange(6), 50
    losses, data = [], []
    for seed in (0, 10, 20):
        inputs, weight = random(samples, 6, seed=seed) @ random(6, 6, seed=seed + 1), random(4, 6, seed=seed + 2)
        factor = torch.linalg.qr(inputs, mode="r").R / samples**0.5
        losses.append(RemovalLoss(factor, weight, units, 6, samples))
        data.append((factor, weight))
    order: list[int] = []
    while len(order) < 6:
        rest = [unit for unit in range(6) if unit not in order]
        order.append(min(rest, key=lambda unit: sum(refit_loss(*each, [*order, unit]) for each in data)))
    found = greedy_scores(losses, 6)
    assert np.argsort(found).tolist() == order
    assert len(set(found.astype(np.float32))) == 6


def refit_loss(factor: Tensor, weight: Tensor, removed: list[int]) -> float:
    kept = factor[:, ~np.isin(np.arange(factor.shape[1]), removed)]
    outputs = factor @ weight.T
    return float((outputs - kept @ torch.linalg.lstsq(kept, outputs).solution).square().sum())


def test_all_but_one_of_equal_units_go_before_the_others() -> None:
    model = nn.Sequential(nn.Linear(5, 8), nn.ReLU(), nn.Linear(8, 3)).double()
    with torch.no_grad():
        for unit in (3, 6, 7):
            model[0].weight[unit], model[0].bias[unit] = model[0].weight[0], model[0].bias[0]
        model[2].weight[:, [0, 3, 6, 7]] *= 100
    x = random(200, 5)
    report = gsprune.prune_step(
        model, 3 / 8, example_inputs=x[:2], importance="reconstruction", compensate="linear", calibration=x
    )
    assert len(np.intersect1d(report.removed["0.weight"][0], [0, 3, 6, 7])) == 3


def test_no_group_without_a_consumer_is_scored() -> None:
    class Products(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.query, self.key = nn.Linear(4, 6), nn.Linear(4, 6)

        def forward(self, x: Tensor) -> Tensor:
            return self.query(x) @ self.key(x).transpose(-1, -2)

    x = torch.randn(20, 3, 4)
    with pytest.raises(ScoreError, match=r"no weight that reads the channels of '(query|key)'.*ignore="):
        gsprune.prune_step(Products(), 0.5, importance="reconstruction", calibration=x, example_inputs=x)


def test_consumers_that_cannot_be_described_are_in_the_report() -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.words, self.head = nn.Embedding(10, 6), nn.Linear(6, 2)

        def forward(self, x: Tensor) -> Tensor:
            x = self.words(x)
            return torch.cat([x @ self.words.weight.T, self.head(x)], -1)

    x = torch.randint(10, (32, 5), generator=torch.Generator().manual_seed(0))
    report = gsprune.prune_step(Tied(), 0.5, importance="reconstruction", calibration=x, example_inputs=x[:2])
    assert report.changed
    assert "does not count these consumers: words.weight: it reads the channels that it makes" in str(report)


def test_data_that_diverges_is_an_error_that_names_the_weight() -> None:
    model = nn.Sequential(nn.Linear(5, 8), nn.ReLU(), nn.Linear(8, 3))
    x = torch.full((20, 5), float("nan"))
    with pytest.raises(ScoreError, match=r"inputs of '2\.weight' are NaN"):
        gsprune.prune_step(model, 0.5, importance="reconstruction", calibration=x, example_inputs=torch.ones(2, 5))
    model[2].weight.data[0, 0] = float("nan")
    with pytest.raises(ScoreError, match=r"'2\.weight' has weights"):
        gsprune.prune_step(model, 0.5, importance="reconstruction", calibration=torch.ones(20, 5))


def test_constant_units_cost_nothing_where_a_bias_takes_them() -> None:
    model = nn.Sequential(nn.Linear(5, 6), nn.Sigmoid(), nn.Linear(6, 3)).double()
    with torch.no_grad():
        model[0].weight[[1, 4]] = 0
    ((_, found),) = scores(model, (random(100, 5),)).items()
    assert np.flatnonzero(found == 0).tolist() == [1, 4]


def test_batches_add_up() -> None:
    torch.manual_seed(0)
    model, x = TwoReaders().double(), random(60, 5)
    (whole,), (parts,) = scores(model, (x,)).values(), scores(model, (x[:20],), (x[20:],)).values()
    np.testing.assert_allclose(parts, whole, rtol=1e-5)


@pytest.mark.parametrize("scope", ["local", "global", "isomorphic"])
def test_every_scope_removes_what_was_asked_for(scope: str) -> None:
    model = nn.Sequential(nn.Linear(5, 16), nn.ReLU(), nn.Linear(16, 16), nn.ReLU(), nn.Linear(16, 3))
    x = torch.randn(64, 5)
    report = gsprune.prune_step(
        model, 0.5, importance="reconstruction", calibration=x, example_inputs=x[:2], scope=scope
    )
    assert report.channel_sparsity == pytest.approx(0.5, abs=0.05)


# -- random networks --------------------------------------------------------------------------------------------------


def scored(net: RandomNet) -> dict[str, np.ndarray]:
    """Scores of all groups; networks with a group that no described weight reads are passed over."""
    with suppress(ScoreError):
        return scores(net.eval(), example(net, 8, 3), example(net, 8, 4))
    reject()


@given(networks(), st.integers(0, 2**20))
def test_scores_are_finite_and_dead_units_score_zero_in_any_network(net: RandomNet, seed: int) -> None:
    graph, random = gsprune.trace(net.eval(), example(net)), np.random.default_rng(seed)
    tensors = canonical_tensors(net)
    dead = {group.name: np.flatnonzero(random.random(group.num_units) < 0.3) for group in graph.groups}
    with torch.no_grad():
        for group in graph.groups:
            for member in group.members:
                if member.role == "in":
                    positions = torch.from_numpy(np.flatnonzero(np.isin(member.units, dead[group.name])))
                    tensors[member.tensor].index_fill_(member.axis, positions, 0)
    for name, found in scored(net).items():
        assert np.isfinite(found).all()
        assert (found >= 0).all()
        assert (found[dead[name]] == 0).all()


@given(networks(), st.integers(0, 2**20))
def test_scores_follow_a_permutation_of_the_units(net: RandomNet, seed: int) -> None:
    net.eval()
    graph, random = gsprune.trace(net, example(net)), np.random.default_rng(seed)
    before, outputs = scored(net), outputs_of(net, example(net, 8, 3))
    orders = {group.name: random.permutation(group.num_units) for group in graph.groups}
    tensors = canonical_tensors(net)
    with torch.no_grad():
        for group in graph.groups:
            for member in group.members:
                source = permuted(member.units, orders[group.name])
                tensor = tensors[member.tensor]
                tensor.copy_(tensor.index_select(member.axis, torch.from_numpy(source)))
    with torch.no_grad():
        pairs = zip(outputs_of(net, example(net, 8, 3)), outputs, strict=True)
        if not all(torch.allclose(one, other) for one, other in pairs):
            reject()  # the network tells its units apart
    for name, found in scored(net).items():
        np.testing.assert_allclose(found, before[name][orders[name]], rtol=1e-3, atol=1e-9 * before[name].max())


def permuted(units: np.ndarray, order: np.ndarray) -> np.ndarray:
    """Positions of which unit u's are those that unit ``order[u]`` had."""
    source = np.arange(len(units))
    for unit, other in enumerate(order):
        source[units == unit] = np.flatnonzero(units == other)
    return source
