"""Maps from kept inputs to lost ones."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from gsprune.compensation.moments import Moments
from gsprune.compensation.solve import solve, solve_constant


def moments_of(inputs: Tensor, kept: list[int], padding: float = 0.0) -> Moments:
    """Moments of inputs of which some are left, and unchanged in the pruned network."""
    moments = Moments(torch.tensor([kept]), inputs.shape[1])
    for part in inputs.split(50):
        moments.add(part[None], part[None, :, kept], padding)
    return moments


def samples(count: int = 200, seed: int = 0) -> Tensor:
    return torch.randn(count, 3, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize(
    ("lost", "weight", "constant"),
    [
        (lambda x: 0 * x[:, 0], [0, 0, 0], 0),
        (lambda x: x[:, 1], [0, 1, 0], 0),
        (lambda x: 2 * x[:, 0] - 3 * x[:, 2], [2, 0, -3], 0),
        (lambda x: 0 * x[:, 0] + 5, [0, 0, 0], 5),
        (lambda x: x[:, 0] + x[:, 1] - 4, [1, 1, 0], -4),
    ],
    ids=["zero", "duplicate", "linear", "constant", "affine"],
)
def test_exact_dependencies_are_found_exactly(lost: object, weight: list[float], constant: float) -> None:
    x = samples()
    inputs = torch.cat([x, lost(x)[:, None]], 1)  # type: ignore[operator]
    found = solve(moments_of(inputs, [0, 1, 2]), has_constant=True)
    assert found.weight is not None
    assert found.constant is not None
    torch.testing.assert_close(found.weight[0, 3], torch.tensor(weight).double(), rtol=0, atol=1e-11)
    torch.testing.assert_close(found.constant[0, 3], torch.tensor(constant).double(), rtol=0, atol=1e-11)
    torch.testing.assert_close(found.weight[0, :3], torch.zeros(3, 3).double(), rtol=0, atol=1e-11)


def test_a_combination_of_dependent_inputs_is_found_although_their_moments_are_singular() -> None:
    x = samples()
    inputs = torch.stack([x[:, 0], x[:, 0], x[:, 1], x[:, 0] + x[:, 1], torch.ones(len(x)).double()], 1)
    found = solve(moments_of(inputs, [0, 1, 2, 4]), has_constant=False)
    assert found.weight is not None
    torch.testing.assert_close(inputs[:, [0, 1, 2, 4]] @ found.weight[0, 3], inputs[:, 3], rtol=0, atol=1e-10)


def test_noise_is_not_fitted_with_few_samples() -> None:
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(30, 25, generator=generator, dtype=torch.float64)
    found = solve(moments_of(inputs, list(range(24))), has_constant=True)
    assert found.weight is not None
    assert found.weight[0, 24].square().sum() < 0.2  # least squares has 4.5 here


@pytest.mark.parametrize("count", [16, 24, 25])
def test_noise_is_not_fitted_with_as_many_coefficients_as_samples(count: int) -> None:
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(count, 33, generator=generator, dtype=torch.float64)
    found = solve(moments_of(inputs, list(range(24))), has_constant=True)
    assert found.weight is not None
    centred = inputs - inputs.mean(0)
    least_squares = torch.linalg.lstsq(centred[:, :24], centred[:, 24:], driver="gelsd").solution
    assert found.weight[0, 24:].square().sum() < 0.3 * least_squares.square().sum()


def test_multiples_of_one_input_are_found_exactly_with_fewer_samples_than_inputs() -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(16, 24, generator=generator, dtype=torch.float64)
    inputs = torch.cat([x, x[:, 3:4], 2 - 0.5 * x[:, 7:8], 0 * x[:, :1]], 1)
    found = solve(moments_of(inputs, list(range(24))), has_constant=True)
    assert found.weight is not None
    assert found.constant is not None
    expected = torch.zeros(3, 24).double()
    expected[0, 3], expected[1, 7] = 1, -0.5
    torch.testing.assert_close(found.weight[0, 24:], expected, rtol=0, atol=1e-11)
    torch.testing.assert_close(found.constant[0, 24:], torch.tensor([0.0, 2.0, 0.0]).double(), rtol=0, atol=1e-11)


def test_an_input_that_is_nearly_always_zero_gets_no_large_coefficient() -> None:
    x = samples(1000)
    rare = torch.where(torch.arange(1000) % 50 == 0, 1e-4 * x[:, 1], 0.0)  # 20 samples, on which it tells all
    lost = torch.where(torch.arange(1000) % 50 == 0, x[:, 1], 0.3 * x[:, 2])
    found = solve(moments_of(torch.stack([x[:, 0], rare, lost], 1), [0, 1]), has_constant=True)
    assert found.weight is not None
    assert found.weight.abs().max() < 1  # least squares has 10,000


def test_the_largest_coefficient_is_where_the_movement_of_the_inputs_costs_as_much_as_it_explains() -> None:
    x = samples(100_000)[:, :2]
    for scale in (1.0, 0.1, 0.01, 0.001):
        inputs = torch.stack([x[:, 0], scale * x[:, 1], x[:, 1] + 1e-3 * x[:, 0].square()], 1)
        found = solve(moments_of(inputs, [0, 1]), has_constant=True)
        assert found.weight is not None
        moved = 0.1**2 * (1 + scale**2) / 2
        assert found.weight[0, 2, 1].item() == pytest.approx(scale / (scale**2 + moved), rel=0.02)


def test_tiny_inputs_that_fit_each_other_by_chance_get_no_large_coefficient() -> None:
    x = samples()
    rare = torch.zeros(len(x), 2, dtype=torch.float64)
    rare[7] = torch.tensor([0.004, 0.02])  # above zero in one sample only
    found = solve(moments_of(torch.cat([x, rare], 1), [0, 1, 2, 3]), has_constant=True)
    assert found.weight is not None
    assert found.weight[0, 4].abs().max() < 0.1  # an exact fit has 5


def test_padding_pulls_the_constant_towards_zero() -> None:
    inputs = torch.ones(100, 2).double()
    inputs[:, 0] = samples(100)[:, 0]
    for padding, constant in ((0.0, 1.0), (0.25, 0.75)):
        found = solve_constant(moments_of(inputs, [0], padding))
        assert found.weight is None
        assert found.constant is not None
        torch.testing.assert_close(found.constant[0, 1].item(), constant)


def test_the_unexplained_share_is_the_residual_of_the_fit() -> None:
    x = samples()
    inputs = torch.stack([x[:, 0], x[:, 0] + 0.1 * x[:, 1]], 1)
    found = solve(moments_of(inputs, [0]), has_constant=True)
    assert found.weight is not None
    assert found.constant is not None
    residual = inputs[:, 1] - found.weight[0, 1, 0] * inputs[:, 0] - found.constant[0, 1]
    torch.testing.assert_close(found.unexplained[0, 1], residual.square().mean())
    torch.testing.assert_close(found.lost[0, 1], inputs[:, 1].square().mean())
    bias = solve_constant(moments_of(inputs, [0]))
    torch.testing.assert_close(bias.unexplained[0, 1], inputs[:, 1].var(correction=0))


def test_inputs_that_are_left_but_always_zero_explain_nothing() -> None:
    inputs = torch.cat([torch.zeros(50, 2).double(), samples(50)[:, :1]], 1)
    found = solve(moments_of(inputs, [0, 1]), has_constant=False)
    assert found.weight is not None
    assert torch.equal(found.weight, torch.zeros_like(found.weight))
    torch.testing.assert_close(found.unexplained, found.lost)


def test_moments_of_all_ranks_are_those_of_all_samples() -> None:
    x = samples()
    inputs = torch.cat([x, x @ torch.tensor([[1.0], [2.0], [0.5]]).double()], 1)
    parts = [moments_of(part, [0, 1, 2]) for part in inputs.split([3, len(inputs) - 3])]  # 3: fewer than columns
    seen: list[dict[str, np.ndarray]] = []
    parts[1].of_all_ranks("layer", lambda own: seen.append(dict(own)) or {name: own[name][None] for name in own})
    both = parts[0].of_all_ranks("layer", lambda own: {name: np.stack([own[name], seen[0][name]]) for name in own})
    together, found = solve(moments_of(inputs, [0, 1, 2]), True), solve(both, True)
    assert together.weight is not None
    assert found.weight is not None
    torch.testing.assert_close(found.weight, together.weight, rtol=0, atol=1e-12)


def test_a_channel_that_almost_never_fires_gets_no_large_weight() -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(1, 256, 121, generator=generator, dtype=torch.float64)
    x[:, :, 120] = x[:, :, :8].sum(2) + torch.randn(256, generator=generator, dtype=torch.float64)
    x[:, :, 0] = 0
    x[:, 3, 0] = 1e-4
    x[:, 3, 120] += 30
    moments = Moments(torch.arange(120)[None], 121)
    moments.add(x, x[:, :, :120], 0.0)
    weight = solve(moments, has_constant=True).weight
    assert weight is not None
    assert weight[0, 120].abs().max() < 2


def test_nothing_is_read_off_the_rounding_of_constant_inputs() -> None:
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(200, 4, generator=generator, dtype=torch.float64)
    inputs[:, :3] = 1 + 1e-15 * inputs[:, :3]
    weight = solve(moments_of(inputs, [0, 1, 2]), has_constant=True).weight
    assert weight is not None
    assert weight.abs().max() < 1
