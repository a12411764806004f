"""The terms of PPO's loss, against hand-computed values and the policy gradient."""

from __future__ import annotations

import math

import pytest
import torch

from gsprune.rl.algorithms.ppo.losses import (
    categorical_entropy,
    categorical_logprobs,
    normalized,
    policy_loss,
    value_loss,
)


def test_log_probabilities_are_those_of_the_categorical_distribution() -> None:
    torch.manual_seed(0)
    logits, actions = torch.randn(6, 15) * 5, torch.randint(0, 15, (6,))
    expected = torch.distributions.Categorical(logits=logits).log_prob(actions)
    torch.testing.assert_close(categorical_logprobs(logits, actions), expected)


def test_entropy_is_log_of_the_number_of_actions_when_uniform_and_zero_when_certain() -> None:
    uniform, certain = torch.zeros(1, 15), torch.tensor([[100.0, 0.0, 0.0]])
    assert categorical_entropy(uniform).item() == pytest.approx(math.log(15))
    assert categorical_entropy(certain).item() == pytest.approx(0, abs=1e-6)


def test_normalised_advantages_have_mean_zero_and_deviation_one() -> None:
    scaled = normalized(torch.tensor([1.0, 2.0, 6.0]))
    assert scaled.mean().item() == pytest.approx(0, abs=1e-6)
    assert scaled.std().item() == pytest.approx(1)


def test_at_ratio_one_the_gradient_is_the_policy_gradient() -> None:
    torch.manual_seed(0)
    logprobs = torch.randn(8, requires_grad=True)
    advantages = torch.randn(8)
    result = policy_loss(logprobs, logprobs.detach(), advantages, 0.2)
    (gradient,) = torch.autograd.grad(result.loss, logprobs)
    torch.testing.assert_close(gradient, -advantages / 8)
    assert result.approx_kl.item() == 0
    assert result.clipfrac.item() == 0


# A ratio outside the clip range gets no gradient where moving on would look better, and all of it where it would
# look worse: (ratio, advantage, loss, gradient with respect to the log probability).
CASES = [
    (1.5, 1.0, -1.2, 0.0),
    (0.5, 1.0, -0.5, -0.5),
    (1.5, -1.0, 1.5, 1.5),
    (0.5, -1.0, 0.8, 0.0),
    (1.1, 1.0, -1.1, -1.1),
]


@pytest.mark.parametrize(("ratio", "advantage", "loss", "gradient"), CASES)
def test_the_surrogate_is_clipped_on_the_side_that_pays(
    ratio: float, advantage: float, loss: float, gradient: float
) -> None:
    logprobs = torch.tensor([math.log(ratio)], requires_grad=True)
    result = policy_loss(logprobs, torch.zeros(1), torch.tensor([advantage]), 0.2)
    (actual,) = torch.autograd.grad(result.loss, logprobs)
    assert result.loss.item() == pytest.approx(loss, rel=1e-5)
    assert actual.item() == pytest.approx(gradient, rel=1e-5)
    assert result.clipfrac.item() == float(abs(ratio - 1) > 0.2)
    assert result.approx_kl.item() == pytest.approx(ratio - 1 - math.log(ratio), rel=1e-4)


def test_value_loss_is_half_the_mean_squared_error() -> None:
    assert value_loss(torch.tensor([1.0, 2.0]), torch.tensor([3.0, 2.0])).item() == 1
