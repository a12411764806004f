from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
import numpy.typing as npt
import pytest
import torch
from gymnasium.vector import AutoresetMode, VectorEnv
from torch import nn

from gsprune.errors import EvaluationError
from gsprune.rl.algorithms.ppo.actions import Categorical, sampled_policy
from gsprune.rl.evaluation.episodes import EpisodeReturns, evaluate, greedy_policy, pixel_noise


class ScriptedEnvs(VectorEnv[Any, Any, Any]):
    """Environment i plays episodes of `lengths[i]` steps with reward 1 + i / 10 each; observations are constant."""

    def __init__(self, lengths: list[int], mode: AutoresetMode = AutoresetMode.SAME_STEP, grey: int = 128) -> None:
        self.num_envs = len(lengths)
        self.metadata = {"autoreset_mode": mode}
        self.single_observation_space = gymnasium.spaces.Box(0, 255, (3, 4, 4), np.uint8)
        self.lengths = np.array(lengths)
        self.grey = grey
        self.clock = np.zeros(self.num_envs, dtype=np.int64)
        self.steps = 0
        self.actions: list[npt.NDArray[np.int64]] = []

    def observe(self) -> npt.NDArray[np.uint8]:
        return np.full((self.num_envs, 3, 4, 4), self.grey, dtype=np.uint8)

    def reset(self, *, seed: Any = None, options: Any = None) -> Any:
        self.clock[:] = 0
        return self.observe(), {}

    def step(self, actions: Any) -> Any:
        self.steps += 1
        self.actions.append(np.asarray(actions).copy())
        rewards = 1 + np.arange(self.num_envs) / 10
        self.clock += 1
        ended = self.clock == self.lengths
        self.clock[ended] = 0
        return self.observe(), rewards, ended, np.zeros_like(ended), {}


class RecordingPolicy:
    def __init__(self, action: int = 1) -> None:
        self.action = action
        self.seen: list[torch.Tensor] = []

    def __call__(self, observations: torch.Tensor) -> npt.NDArray[np.int64]:
        self.seen.append(observations)
        return np.full(len(observations), self.action)


def test_every_environment_contributes_the_same_number_of_episodes() -> None:
    result = evaluate(RecordingPolicy(), ScriptedEnvs([1, 10]), episodes_per_env=3)
    np.testing.assert_array_equal(result.lengths, [[1, 1, 1], [10, 10, 10]])
    np.testing.assert_allclose(result.returns, [[1, 1, 1], [11, 11, 11]])
    assert result.mean == pytest.approx(6.0)  # the first six episodes to end would give 1.0


def test_it_stops_as_soon_as_the_last_episode_has_ended() -> None:
    envs = ScriptedEnvs([2, 7, 3])
    evaluate(RecordingPolicy(), envs, episodes_per_env=2)
    assert envs.steps == 14


def test_the_policy_is_not_asked_for_finished_environments_and_batch_sizes_stay_few() -> None:
    policy = RecordingPolicy()
    envs = ScriptedEnvs([1, 2, 3, 4, 5, 6, 7, 8])
    evaluate(policy, envs, episodes_per_env=1)
    assert [len(seen) for seen in policy.seen] == [8, 8, 8, 8, 4, 4, 2, 1]
    np.testing.assert_array_equal(envs.actions[-1], [0, 0, 0, 0, 0, 0, 0, 1])


def test_an_evaluation_starts_from_a_reset_and_can_be_repeated() -> None:
    envs = ScriptedEnvs([5, 5])
    envs.step(np.zeros(2))
    first = evaluate(RecordingPolicy(), envs, episodes_per_env=1)
    second = evaluate(RecordingPolicy(), envs, episodes_per_env=1)
    np.testing.assert_array_equal(first.lengths, [[5], [5]])
    np.testing.assert_array_equal(first.returns, second.returns)


def test_a_truncated_episode_counts_as_an_episode() -> None:
    class Truncating(ScriptedEnvs):
        def step(self, actions: Any) -> Any:
            observations, rewards, ended, none, infos = super().step(actions)
            return observations, rewards, none, ended, infos

    assert evaluate(RecordingPolicy(), Truncating([3]), episodes_per_env=2).lengths.tolist() == [[3, 3]]


def test_without_noise_the_policy_sees_the_pixels_as_they_are() -> None:
    policy = RecordingPolicy()
    evaluate(policy, ScriptedEnvs([2], grey=77), episodes_per_env=1)
    assert policy.seen[0].dtype == torch.uint8
    assert policy.seen[0].shape == (1, 3, 4, 4)
    assert all(bool((seen == 77).all()) for seen in policy.seen)


def test_with_noise_the_policy_sees_new_noise_at_every_step() -> None:
    policy = RecordingPolicy()
    evaluate(policy, ScriptedEnvs([2]), episodes_per_env=1, noise_sigma=15, rng=np.random.default_rng(0))
    assert not torch.equal(policy.seen[0], policy.seen[1])
    assert not bool((policy.seen[0] == 128).all())


def test_noise_has_the_asked_for_deviation_and_is_rounded() -> None:
    plain = np.full((64, 3, 64, 64), 128, dtype=np.uint8)
    noisy = pixel_noise(plain, 5, np.random.default_rng(1))
    assert noisy.dtype == np.uint8
    difference = noisy.astype(np.float64) - 128
    # Rounding adds 1/12 to the variance; truncation would shift the mean by 1/2.
    assert difference.std() == pytest.approx(np.sqrt(25 + 1 / 12), rel=0.01)
    assert abs(difference.mean()) < 0.03
    assert (plain == 128).all()


@pytest.mark.parametrize(("grey", "bound"), [(0, "low"), (255, "high")])
def test_noise_is_clipped_and_does_not_wrap_around(grey: int, bound: str) -> None:
    noisy = pixel_noise(np.full((10, 3, 64, 64), grey, dtype=np.uint8), 30, np.random.default_rng(2))
    at_bound = (noisy == grey).mean()
    assert 0.45 < at_bound < 0.55
    assert (noisy.max() < 200) if bound == "low" else (noisy.min() > 55)


@pytest.mark.parametrize("sigma", [0.0, 5.0])
def test_frames_that_are_colours_last_reach_the_policy_as_channels_last(sigma: float) -> None:
    class ColoursLast(ScriptedEnvs):
        def observe(self) -> npt.NDArray[np.uint8]:
            return np.full((self.num_envs, 4, 4, 3), self.grey, dtype=np.uint8).transpose(0, 3, 1, 2)

    policy = RecordingPolicy()
    evaluate(policy, ColoursLast([1, 1]), episodes_per_env=1, noise_sigma=sigma, rng=np.random.default_rng(5))
    assert policy.seen[0].is_contiguous(memory_format=torch.channels_last)


def test_the_sampled_policy_follows_the_distribution_and_leaves_the_global_stream_alone() -> None:
    logits = torch.log(torch.tensor([0.1, 0.2, 0.7]))
    generator = torch.Generator().manual_seed(3)
    policy = sampled_policy(Categorical([3], ()), lambda x: logits.expand(len(x), -1), nn.Identity(), generator)
    before = torch.get_rng_state()
    actions = policy(torch.zeros(20_000, 1, 1, 1, dtype=torch.uint8))
    assert torch.equal(before, torch.get_rng_state())
    np.testing.assert_allclose(np.bincount(actions) / len(actions), [0.1, 0.2, 0.7], atol=0.02)


def test_the_sampled_policy_repeats_itself_from_the_same_seed() -> None:
    def play() -> npt.NDArray[Any]:
        generator = torch.Generator().manual_seed(4)
        policy = sampled_policy(Categorical([15], ()), lambda x: torch.zeros(len(x), 15), nn.Identity(), generator)
        return policy(torch.zeros(50, 1, 1, 1, dtype=torch.uint8))

    np.testing.assert_array_equal(play(), play())


def test_the_greedy_policy_takes_the_best_action_and_the_first_of_equals() -> None:
    policy = greedy_policy(lambda x: torch.tensor([[0.0, 2.0, 1.0], [5.0, 5.0, 1.0]]))
    assert policy(torch.zeros(2, 1, 1, 1, dtype=torch.uint8)).tolist() == [1, 0]


def test_policies_build_no_graph() -> None:
    weight = torch.zeros(1, requires_grad=True)
    states = []

    def network(x: torch.Tensor) -> torch.Tensor:
        out = torch.zeros(len(x), 3) + weight
        states.append(out.requires_grad)
        return out

    observations = torch.zeros(2, 1, 1, 1, dtype=torch.uint8)
    sampled_policy(Categorical([3], ()), network, nn.Identity(), torch.Generator())(observations)
    greedy_policy(network)(observations)
    assert states == [False, False]


def test_the_mean_is_that_of_all_episodes() -> None:
    result = EpisodeReturns(np.array([[1.0, 2.0], [3.0, 4.0]]), np.ones((2, 2), dtype=np.int64))
    assert result.mean == 2.5


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"episodes_per_env": 0}, "`episodes_per_env` must be at least 1, got 0"),
        ({"episodes_per_env": 1, "noise_sigma": -1.0}, "`noise_sigma` must be at least 0, got -1.0"),
        ({"episodes_per_env": 1, "noise_sigma": 5.0}, "`rng` is needed"),
    ],
)
def test_bad_arguments_are_refused_before_the_environments_are_touched(arguments: Any, message: str) -> None:
    envs = ScriptedEnvs([1])
    envs.clock[:] = 9
    with pytest.raises(ValueError, match=message):
        evaluate(RecordingPolicy(), envs, **arguments)
    assert envs.clock[0] == 9


@pytest.mark.parametrize("mode", [AutoresetMode.DISABLED, AutoresetMode.NEXT_STEP])
def test_environments_that_reset_later_or_never_are_refused(mode: AutoresetMode) -> None:
    with pytest.raises(ValueError, match="must reset themselves"):
        evaluate(RecordingPolicy(), ScriptedEnvs([1], mode), episodes_per_env=1)


def test_an_episode_that_does_not_end_is_an_error_that_names_the_way_out() -> None:
    with pytest.raises(EvaluationError, match=r"not ended after 50 steps.*TimeLimit; only gsprune eval .*steps"):
        evaluate(RecordingPolicy(), ScriptedEnvs([3, 10**9]), episodes_per_env=2, max_episode_steps=50)
    lengths = evaluate(RecordingPolicy(), ScriptedEnvs([2, 50]), episodes_per_env=2, max_episode_steps=50).lengths
    np.testing.assert_array_equal(lengths, [[2, 2], [50, 50]])


class LastingPolicy(RecordingPolicy):
    """After the first step, environment 0 has an episode that never ends."""

    def __init__(self, envs: ScriptedEnvs) -> None:
        super().__init__()
        self.envs = envs

    def __call__(self, observations: torch.Tensor) -> npt.NDArray[np.int64]:
        if self.seen:
            self.envs.lengths = np.array([10**9, 90])
        return super().__call__(observations)


def test_an_environment_that_has_played_its_episodes_may_go_on_for_ever() -> None:
    envs = ScriptedEnvs([1, 90])
    result = evaluate(LastingPolicy(envs), envs, episodes_per_env=1, max_episode_steps=90)
    np.testing.assert_array_equal(result.lengths, [[1], [90]])
