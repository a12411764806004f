"""Advantages, explained variance and the normalisation of rewards, against hand-computed values and closed forms."""

from __future__ import annotations

import math

import numpy as np
import pytest

from gsprune.rl.algorithms.ppo.returns import RewardNormalizer, explained_variance, gae


def test_advantages_of_a_hand_computed_rollout() -> None:
    rewards = np.array([[1.0], [2.0], [3.0]], np.float32)
    values = np.array([[0.5], [1.0], [1.5], [2.0]], np.float32)
    discounts = np.array([[0.5], [0.5], [0.5]], np.float32)
    # deltas: 1 + .5 - .5 = 1; 2 + .75 - 1 = 1.75; 3 + 1 - 1.5 = 2.5; decay .5 * .8 = .4
    expected = [1 + 0.4 * (1.75 + 0.4 * 2.5), 1.75 + 0.4 * 2.5, 2.5]
    np.testing.assert_allclose(gae(rewards, values, discounts, 0.8)[:, 0], expected, rtol=1e-6)


def test_nothing_flows_back_over_the_end_of_an_episode() -> None:
    rewards = np.array([[1.0, 1.0], [100.0, 100.0]], np.float32)
    values = np.array([[0.25, 0.25], [7.0, 7.0], [9.0, 9.0]], np.float32)
    discounts = np.array([[0.0, 0.9], [0.9, 0.9]], np.float32)  # only the first environment ends at t = 0
    advantages = gae(rewards, values, discounts, 0.95)
    assert advantages[0, 0] == pytest.approx(0.75)
    assert advantages[0, 1] > 50


def test_lambda_one_gives_the_discounted_return_minus_the_value() -> None:
    rng = np.random.default_rng(0)
    rewards, values = rng.normal(size=(5, 3)).astype(np.float32), rng.normal(size=(6, 3)).astype(np.float32)
    discounts = np.full((5, 3), 0.9, np.float32)
    returns = values[5].astype(np.float64)
    for t in reversed(range(5)):
        returns = rewards[t] + 0.9 * returns
    np.testing.assert_allclose(gae(rewards, values, discounts, 1.0)[0], returns - values[0], rtol=1e-5, atol=1e-5)


def test_a_value_function_that_is_right_has_no_advantages() -> None:
    rewards = np.ones((50, 2), np.float32)
    values = np.full((51, 2), 1 / (1 - 0.9), np.float32)
    np.testing.assert_allclose(gae(rewards, values, np.full((50, 2), 0.9, np.float32), 0.95), 0, atol=1e-5)


def test_inputs_are_not_modified() -> None:
    rewards, values, discounts = np.ones((3, 1)), np.ones((4, 1)), np.ones((3, 1))
    gae(rewards, values, discounts, 0.5)
    assert (rewards == 1).all()
    assert (values == 1).all()
    assert (discounts == 1).all()


def test_wrong_shapes_are_refused_by_name() -> None:
    good = np.ones((3, 2))
    with pytest.raises(ValueError, match=r"`values` must have shape \(4, 2\), got \(3, 2\)"):
        gae(good, good, good, 0.5)
    with pytest.raises(ValueError, match="`discounts`"):
        gae(good, np.ones((4, 2)), np.ones((2, 2)), 0.5)
    with pytest.raises(ValueError, match="`gae_lambda` must be in"):
        gae(good, np.ones((4, 2)), good, 1.5)


def test_explained_variance_of_perfect_constant_and_opposite_predictions() -> None:
    returns = np.array([1.0, 2.0, 3.0])
    assert explained_variance(returns, returns) == 1
    assert explained_variance(np.full(3, 7.0), returns) == pytest.approx(0)
    assert explained_variance(-returns, returns) == pytest.approx(-3)
    assert math.isnan(explained_variance(returns, np.ones(3)))


def test_the_unit_of_rewards_is_the_spread_of_all_discounted_returns_so_far() -> None:
    rng = np.random.default_rng(0)
    normalizer = RewardNormalizer(num_envs=4, gamma=0.9)
    seen: list[np.ndarray] = []
    returns = np.zeros(4)
    for _ in range(200):
        rewards = rng.normal(2, 3, 4)
        ended = rng.random(4) < 0.1
        returns = returns * 0.9 + rewards
        seen.append(returns.copy())
        normalized = normalizer(rewards, ended)
        returns[ended] = 0
    spread = np.concatenate(seen).std()
    np.testing.assert_allclose(normalized, rewards / spread, rtol=1e-4)


def test_normalised_rewards_are_clipped() -> None:
    normalizer = RewardNormalizer(num_envs=1, gamma=0.0, clip=10.0)
    for _ in range(1000):
        normalizer(np.array([0.0]), np.array([False]))
    assert normalizer(np.array([1000.0]), np.array([False])) == 10
    assert normalizer(np.array([-1000.0]), np.array([False])) == -10


def test_a_normaliser_goes_on_from_its_state() -> None:
    rng = np.random.default_rng(0)
    first, second = RewardNormalizer(3), RewardNormalizer(3)
    for _ in range(10):
        first(rng.normal(size=3), rng.random(3) < 0.3)
    second.load_state_dict(first.state_dict())
    for _ in range(10):
        rewards, ended = rng.normal(size=3), rng.random(3) < 0.3
        np.testing.assert_array_equal(first(rewards, ended), second(rewards, ended))
