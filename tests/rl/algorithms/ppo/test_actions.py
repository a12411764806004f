"""The action distributions of PPO against torch.distributions."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from gymnasium.spaces import Box, Discrete, MultiDiscrete, Text
from torch import distributions, nn

from gsprune.rl.algorithms.ppo.actions import distribution_of


def network(size: int) -> nn.Module:
    module = nn.Module()
    module.log_std = nn.Parameter(torch.linspace(-1, 0.5, size))
    return module


def test_a_gaussian_is_that_of_torch_and_clips_for_the_environment_alone() -> None:
    actions = distribution_of(Box(np.float32([-0.1, 0, 0]), np.float32([0.1, 1, 1])))
    means = torch.randn(7, 3)
    parameters = actions.parameters(means, network(3))
    reference = distributions.Independent(distributions.Normal(means, network(3).log_std.exp()), 1)
    noise = actions.noise(7, torch.device("cpu"), torch.Generator().manual_seed(0))
    drawn = actions.sample(parameters, noise).detach()
    torch.testing.assert_close(actions.logprobs(parameters, drawn), reference.log_prob(drawn))
    torch.testing.assert_close(actions.entropy(parameters), reference.entropy())
    played = actions.to_environment(drawn)
    assert np.array_equal(played, np.clip(drawn.numpy(), [-0.1, 0, 0], [0.1, 1, 1]).astype(np.float32))
    assert not np.array_equal(played, drawn.numpy())


def test_several_choices_are_independent_categoricals() -> None:
    actions = distribution_of(MultiDiscrete([2, 5]))
    logits = torch.randn(4000, 1).expand(4000, 7) * 0 + torch.randn(7)
    drawn = actions.sample(logits, actions.noise(4000, torch.device("cpu"), torch.Generator().manual_seed(0)))
    assert drawn.shape == (4000, 2)
    parts = [distributions.Categorical(logits=part) for part in torch.split(logits, [2, 5], -1)]
    torch.testing.assert_close(
        actions.logprobs(logits, drawn), sum(part.log_prob(drawn[:, i]) for i, part in enumerate(parts))
    )
    torch.testing.assert_close(actions.entropy(logits), parts[0].entropy() + parts[1].entropy())
    shares = torch.bincount(drawn[:, 1], minlength=5) / 4000
    torch.testing.assert_close(shares, parts[1].probs[0], atol=0.04, rtol=0)


def test_divergences_are_those_of_torch() -> None:
    logits, others = torch.randn(6, 7), torch.randn(6, 7)
    several = distribution_of(MultiDiscrete([2, 5])).divergence(logits, others)
    pairs = zip(torch.split(logits, [2, 5], -1), torch.split(others, [2, 5], -1), strict=True)
    parts = [
        distributions.kl_divergence(distributions.Categorical(logits=p), distributions.Categorical(logits=q))
        for p, q in pairs
    ]
    torch.testing.assert_close(several, parts[0] + parts[1])
    torch.testing.assert_close(distribution_of(Discrete(2)).divergence(logits[:, :2], others[:, :2]), parts[0])
    gaussian = distribution_of(Box(0, 1, (3,))).divergence(logits[:, :6], others[:, :6])
    p, q = (distributions.Normal(x[:, :3], x[:, 3:6].exp()) for x in (logits, others))
    torch.testing.assert_close(gaussian, distributions.kl_divergence(p, q).sum(-1))


@pytest.mark.parametrize("space", [Text(3), Discrete(3, start=1), Box(0, 5, (2,), np.int64)])
def test_other_spaces_are_refused_with_the_way_out(space: object) -> None:
    with pytest.raises(ValueError, match=r"PPO needs a Discrete, MultiDiscrete or .*TransformAction"):
        distribution_of(space)
