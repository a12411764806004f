"""Agents as people write them: recurrent ones with masks of ends, and Stable-Baselines3's policies."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from masked_networks import masked_copy
from torch import Tensor, nn
from torch.distributions import Categorical

import gsprune

DOUBLE = torch.float64


class RecurrentAgent(nn.Module):
    """Frames, a recurrent layer whose state is reset where an episode ended, two heads; no `forward`."""

    def __init__(self) -> None:
        super().__init__()
        self.network = nn.Sequential(
            nn.Conv2d(3, 8, 4, stride=2), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(200, 16)
        )
        self.lstm = nn.LSTM(16, 12)
        self.actor, self.critic = nn.Linear(12, 4), nn.Linear(12, 1)

    def states(self, x: Tensor, state: tuple[Tensor, Tensor], done: Tensor) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        n = state[0].shape[1]
        hidden = self.network(x).reshape(-1, n, self.lstm.input_size)
        outputs = []
        for frame, end in zip(hidden, done.reshape(-1, n), strict=True):
            alive = (1.0 - end).view(1, -1, 1)
            output, state = self.lstm(frame.unsqueeze(0), (alive * state[0], alive * state[1]))
            outputs.append(output)
        return torch.cat(outputs).flatten(0, 1), state

    def policy_and_value(self, x: Tensor, state: Any, done: Tensor) -> tuple[Categorical, Tensor, Any]:
        hidden, state = self.states(x, state, done)
        return Categorical(logits=self.actor(hidden)), self.critic(hidden), state


def rollout() -> tuple[Tensor, Tensor]:
    """Three steps of two environments."""
    generator = torch.Generator().manual_seed(0)
    frames = torch.rand(6, 3, 16, 16, generator=generator, dtype=DOUBLE)
    return frames, torch.tensor([0.0, 1, 0, 0, 1, 0], dtype=DOUBLE)


def from_zeros(agent: RecurrentAgent, x: Tensor, done: Tensor) -> tuple[Tensor, Tensor]:
    zeros = x.new_zeros(1, 2, agent.lstm.hidden_size)
    policy, value, _ = agent.policy_and_value(x, (zeros, zeros), done)
    return policy.logits, value


def test_a_recurrent_agent_shrinks_its_state_where_the_call_makes_it() -> None:
    torch.manual_seed(0)
    agent, (x, done) = RecurrentAgent().double(), rollout()
    dense = copy.deepcopy(agent)
    report = gsprune.prune_step(agent, 0.5, example_inputs=(x, done), forward=from_zeros)
    assert (agent.lstm.input_size, agent.lstm.hidden_size) == (8, 6)
    masked = masked_copy(dense, report.removed)
    for got, expected in zip(from_zeros(agent, x, done), from_zeros(masked, x, done), strict=True):
        torch.testing.assert_close(got, expected, rtol=1e-9, atol=1e-9)


def test_the_state_of_a_running_rollout_is_sliced_by_the_report() -> None:
    torch.manual_seed(0)
    agent, (x, done) = RecurrentAgent().double(), rollout()
    dense = copy.deepcopy(agent)
    state = (torch.randn(1, 2, 12, dtype=DOUBLE), torch.randn(1, 2, 12, dtype=DOUBLE))
    report = gsprune.prune_step(agent, 0.5, example_inputs=(x, done), forward=from_zeros)
    smaller = tuple(report.slice("lstm", each, axis=2) for each in state)
    removed = report.removed["lstm.weight_hh_l0"][1]
    emptied = tuple(each.index_fill(2, removed, 0) for each in state)
    got = agent.policy_and_value(x, smaller, done)[1]
    torch.testing.assert_close(got, masked_copy(dense, report.removed).policy_and_value(x, emptied, done)[1])


def test_a_state_that_comes_from_outside_keeps_its_width_and_the_rest_shrinks() -> None:
    torch.manual_seed(0)
    agent, (x, done) = RecurrentAgent().double(), rollout()
    state = tuple(torch.zeros(1, 2, 12, dtype=DOUBLE) for _ in range(2))
    gsprune.prune_step(
        agent, 0.5, example_inputs=(x, state, done), forward=lambda agent, *inputs: agent.policy_and_value(*inputs)
    )
    assert (agent.lstm.input_size, agent.lstm.hidden_size) == (8, 12)
    assert agent.policy_and_value(x, state, done)[1].shape == (6, 1)


def policies() -> dict[str, tuple[Any, Any]]:
    """Name -> a policy of Stable-Baselines3 and observations for it."""
    pytest.importorskip("stable_baselines3")
    import numpy as np
    from gymnasium import spaces
    from stable_baselines3.common.policies import (
        ActorCriticCnnPolicy,
        ActorCriticPolicy,
        MultiInputActorCriticPolicy,
    )
    from stable_baselines3.dqn.policies import CnnPolicy as DQNPolicy
    from stable_baselines3.sac.policies import SACPolicy

    def rate(_: float) -> float:
        return 1e-3

    vector = spaces.Box(-1, 1, (5,), np.float32)
    frame = spaces.Box(0, 255, (3, 64, 64), np.uint8)
    discrete, continuous = spaces.Discrete(4), spaces.Box(-1, 1, (2,), np.float32)
    both = spaces.Dict({"frame": frame, "vector": vector})
    frames = torch.randint(0, 256, (2, 3, 64, 64), dtype=torch.uint8)
    vectors = torch.randn(2, 5)
    return {
        "ppo_mlp": (ActorCriticPolicy(vector, discrete, rate), vectors),
        "ppo_cnn": (ActorCriticCnnPolicy(frame, discrete, rate), frames),
        "ppo_continuous": (ActorCriticPolicy(vector, continuous, rate), vectors),
        "ppo_dict": (MultiInputActorCriticPolicy(both, discrete, rate), {"frame": frames, "vector": vectors}),
        "dqn_cnn": (DQNPolicy(frame, discrete, rate).q_net, frames),
        "sac": (SACPolicy(vector, continuous, rate).actor, vectors),
    }


def call(policy: Any, observation: Any) -> Any:
    """What of a policy is not drawn."""
    if hasattr(policy, "predict_values"):
        distribution = policy.get_distribution(observation).distribution
        return distribution.mean if hasattr(distribution, "loc") else distribution.logits, policy.predict_values(
            observation
        )
    return policy.get_action_dist_params(observation)[:2] if hasattr(policy, "latent_pi") else policy(observation)


@pytest.mark.parametrize("name", ["ppo_mlp", "ppo_cnn", "ppo_continuous", "ppo_dict", "dqn_cnn", "sac"])
def test_policies_of_stable_baselines_are_pruned_as_they_are(name: str) -> None:
    torch.manual_seed(0)
    policy, observation = policies()[name]
    dense = copy.deepcopy(policy)
    report = gsprune.prune_step(policy, 0.5, example_inputs=(observation,), forward=call)
    assert report.params_after < 0.65 * report.params_before
    with torch.no_grad():
        got, expected = call(policy, observation), call(masked_copy(dense, report.removed), observation)
    for one, other in zip(got, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)
    policy.zero_grad()
    sum(each.sum() for each in call(policy, observation)).backward()
