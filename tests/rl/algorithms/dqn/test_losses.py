import numpy as np
import pytest
import torch

from gsprune.rl.algorithms.dqn.losses import (
    double_dqn_targets,
    epsilon_at,
    epsilon_greedy,
    importance_weights,
    n_step_returns,
    priorities,
    q_loss,
)

NEVER = np.zeros((3, 1), dtype=bool)


def test_n_step_returns_discount_every_reward_and_bootstrap_with_gamma_to_the_n():
    rewards = np.array([[1.0], [2.0], [4.0]], dtype=np.float32)
    returns, discounts = n_step_returns(rewards, NEVER, NEVER, 0.5)
    assert returns.tolist() == [1.0 + 0.5 * 2.0 + 0.25 * 4.0]
    assert discounts.tolist() == [0.125]


@pytest.mark.parametrize(("end", "expected"), [(0, 1.0), (1, 2.0), (2, 3.0)])
def test_an_end_inside_the_window_keeps_its_own_reward_and_drops_all_after(end, expected):
    rewards = np.array([[1.0], [2.0], [4.0]], dtype=np.float32)
    terminated = (np.arange(3) == end)[:, None]
    returns, discounts = n_step_returns(rewards, terminated, np.zeros_like(terminated), 0.5)
    assert returns.tolist() == [expected]
    assert discounts.tolist() == [0.0]


@pytest.mark.parametrize(("end", "expected"), [(0, 1.0), (1, 2.0), (2, 3.0)])
def test_a_time_limit_inside_the_window_cuts_the_return_and_keeps_the_bootstrap(end, expected):
    rewards = np.array([[1.0], [2.0], [4.0]], dtype=np.float32)
    truncated = (np.arange(3) == end)[:, None]
    ended = (np.arange(3) >= end)[:, None]  # later ends are of other episodes
    returns, discounts = n_step_returns(rewards, ended, truncated, 0.5)
    assert returns.tolist() == [expected]
    assert discounts.tolist() == [0.5 ** (end + 1)]


def test_a_time_limit_after_the_end_of_the_game_is_of_another_episode():
    ended, truncated = np.array([[True], [True], [False]]), np.array([[False], [True], [False]])
    assert n_step_returns(np.ones((3, 1), np.float32), ended, truncated, 0.5)[1].tolist() == [0.0]


def test_double_dqn_takes_the_online_argmax_and_the_targets_value():
    next_online = torch.tensor([[1.0, 5.0, 2.0], [9.0, 0.0, 0.0]])
    next_target = torch.tensor([[100.0, 10.0, 1000.0], [-3.0, 50.0, 50.0]])
    targets = double_dqn_targets(torch.tensor([1.0, 2.0]), torch.tensor([0.5, 0.0]), next_online, next_target)
    assert targets.tolist() == [1.0 + 0.5 * 10.0, 2.0]


def test_weights_enter_the_loss_and_its_gradient_once():
    values = torch.tensor([[0.0, 1.0], [3.0, 0.0]], requires_grad=True)
    loss, errors = q_loss(values, torch.tensor([1, 0]), torch.tensor([4.0, 1.0]), torch.tensor([0.5, 1.5]))
    loss.backward()
    assert errors.tolist() == [3.0, -2.0]
    assert loss.item() == (0.5 * 9.0 + 1.5 * 4.0) / 2
    # dL/dQ = -2 w δ / B
    assert values.grad is not None
    assert values.grad.tolist() == [[0.0, -1.5], [3.0, 0.0]]


def test_importance_weights_are_powers_of_the_priority_divided_by_their_mean():
    weights = importance_weights(np.array([1.0, 4.0, 16.0]), 0.5)
    raw = np.array([1.0, 0.5, 0.25])
    assert weights == pytest.approx(raw / raw.mean(), rel=1e-6)
    assert importance_weights(np.array([1.0, 4.0]), 0.0).tolist() == [1.0, 1.0]


def test_importance_weights_do_not_depend_on_the_scale_of_the_priorities():
    sampled = np.array([1.0, 3.0, 10.0])
    assert importance_weights(sampled * 1e-9, 0.5) == pytest.approx(importance_weights(sampled, 0.5), rel=1e-6)


def test_priorities_are_positive_powers_of_the_absolute_error():
    result = priorities(np.array([-4.0, 0.0, 9.0], dtype=np.float32), 0.5, 1e-6)
    assert result == pytest.approx([2.0, 1e-3, 3.0], rel=1e-5)
    assert priorities(np.array([-4.0, 0.0], dtype=np.float32), 0.0, 1e-6).tolist() == [1.0, 1.0]


@pytest.mark.parametrize(("step", "expected"), [(0, 1.0), (50, 0.5125), (100, 0.025), (101, 0.025), (1000, 0.025)])
def test_epsilon_falls_linearly_over_the_first_tenth(step, expected):
    assert epsilon_at(step, 1000, final=0.025, fraction=0.1) == pytest.approx(expected)


def test_every_environment_has_its_own_coin():
    rng = np.random.default_rng(0)
    greedy = np.zeros(4000, dtype=np.int64)
    actions = epsilon_greedy(greedy, 0.5, 1_000_000, rng)
    # With one coin for all, the share of explorers would be 0 or 1.
    assert 0.45 < (actions > 0).mean() < 0.55


def test_epsilon_zero_is_greedy_and_epsilon_one_uniform():
    greedy = np.full(3000, 2)
    assert (epsilon_greedy(greedy, 0.0, 3, np.random.default_rng(0)) == 2).all()
    counts = np.bincount(epsilon_greedy(greedy, 1.0, 3, np.random.default_rng(0)), minlength=3)
    assert (abs(counts - 1000) < 130).all()


def test_exploration_advances_the_generator_by_the_same_amount_for_any_epsilon():
    first, second = np.random.default_rng(5), np.random.default_rng(5)
    epsilon_greedy(np.zeros(7, dtype=np.int64), 0.0, 15, first)
    epsilon_greedy(np.zeros(7, dtype=np.int64), 1.0, 15, second)
    assert first.random() == second.random()
