"""The loss of removing inputs equals that of the best refit, found by brute force."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations

import numpy as np
import pytest
import torch
from torch import Tensor

from gsprune.compensation.removal_loss import RemovalLoss

NUM_UNITS = 6
# The unit of every input: one input each, several each, unequally many, and inputs that stay.
UNITS = {
    "one": [0, 1, 2, 3, 4, 5],
    "two": [0, 1, 2, 3, 4, 5, 5, 4, 3, 2, 1, 0],
    "unequal": [0, 0, 0, 1, 2, 2, 3, 4, -1, 5, 5],
    "not all": [3, -1, 1, 1, -1],
}


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def consumer(kind: str, seed: int = 0, samples: int = 40) -> tuple[RemovalLoss, Tensor, Tensor, np.ndarray]:
    """A loss, and its inputs (samples, inputs), weight and units."""
    units = np.array(UNITS[kind])
    inputs = random(samples, len(units), seed=seed) @ random(len(units), len(units), seed=seed + 1)
    weight = random(3, len(units), seed=seed + 2)
    factor = torch.linalg.qr(inputs, mode="r").R / samples**0.5
    return RemovalLoss(factor, weight, units, NUM_UNITS, samples), inputs, weight, units


def refit_loss(loss: RemovalLoss, inputs: Tensor, weight: Tensor, units: np.ndarray, removed: Sequence[int]) -> float:
    """Mean square change of the outputs, and ridge times that of the kept weights, after the best refit."""
    is_kept = ~np.isin(units, removed)
    ridge = (torch.eye(len(units), dtype=inputs.dtype) * loss.ridge**0.5)[is_kept]
    rows = torch.cat([inputs / len(inputs) ** 0.5, ridge])
    kept = rows[:, is_kept]
    outputs = rows @ weight.T
    refitted = kept @ torch.linalg.lstsq(kept, outputs).solution
    return float((outputs - refitted).square().sum())


@pytest.mark.parametrize("removed", [*combinations(range(NUM_UNITS), 2), *combinations(range(NUM_UNITS), 3)])
@pytest.mark.parametrize("kind", UNITS)
def test_the_costs_of_removals_add_up_to_the_loss_of_the_best_refit(kind: str, removed: tuple[int, ...]) -> None:
    loss, *data = consumer(kind)
    total = 0.0
    for unit in removed:
        total += loss.costs()[unit]
        loss.remove(unit)
    assert total == pytest.approx(refit_loss(loss, *data, removed), rel=1e-7, abs=1e-12)


@pytest.mark.parametrize("kind", UNITS)
def test_the_cost_of_a_unit_is_that_of_the_best_refit_without_it(kind: str) -> None:
    loss, *data = consumer(kind)
    expected = [refit_loss(loss, *data, [unit]) for unit in range(NUM_UNITS)]
    np.testing.assert_allclose(loss.costs(), expected, rtol=1e-7, atol=1e-12)


def test_a_unit_that_is_gone_costs_nothing_and_can_be_removed_again() -> None:
    loss, *_ = consumer("two")
    loss.remove(2)
    costs = loss.costs()
    assert costs[2] == 0
    loss.remove(2)
    np.testing.assert_allclose(loss.costs(), costs, rtol=1e-12)


def test_one_of_two_equal_units_costs_nothing_and_the_other_all() -> None:
    inputs = random(50, 4)
    inputs[:, 3] = inputs[:, 0]
    factor = torch.linalg.qr(inputs, mode="r").R / 50**0.5
    weight = 100 * random(3, 4, seed=1)
    loss = RemovalLoss(factor, weight, np.arange(4), 4, 50)
    size = float((inputs @ weight.T).square().mean())
    costs = loss.costs()
    assert max(costs[0], costs[3]) < 1e-6 * size
    assert min(costs[1], costs[2]) > 1e-2 * size
    loss.remove(3)
    assert loss.costs()[0] > 1e-2 * size


def test_more_inputs_than_samples_do_not_explain_each_other_for_nothing() -> None:
    few, many = (consumer("one", samples=samples)[0].ridge for samples in (4, 4000))
    assert few > 1e3 * many


def test_inputs_that_nothing_explains_cost_their_variance_times_their_weights() -> None:
    inputs = random(4000, 4) * torch.tensor([1.0, 0.1, 0.01, 10.0], dtype=torch.float64)
    factor = torch.linalg.qr(inputs, mode="r").R / 4000**0.5
    weight = random(3, 4, seed=1)
    costs = RemovalLoss(factor, weight, np.arange(4), 4, 4000).costs()
    expected = weight.square().sum(0) * inputs.square().mean(0)
    np.testing.assert_allclose(costs, expected.numpy(), rtol=0.02)


def test_inputs_of_zero_cost_nothing() -> None:
    loss = RemovalLoss(torch.zeros(5, 4, dtype=torch.float64), random(3, 4), np.arange(4), 4, 20)
    np.testing.assert_array_equal(loss.costs(), 0)
    loss.remove(1)
    np.testing.assert_array_equal(loss.costs(), 0)
