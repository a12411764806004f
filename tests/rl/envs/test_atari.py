"""Atari games: observations, whole games in their own rewards, and training with lives and clipped rewards."""

from __future__ import annotations

import numpy as np
import pytest

from gsprune.errors import install_command
from gsprune.rl.envs.atari import AtariProvider
from gsprune.rl.envs.atari_scores import HUMAN_SCORES
from gsprune.rl.envs.provider import EnvironmentRequest

pytest.importorskip("ale_py", reason=f"the extra 'atari' is not installed: {install_command('atari')}")

PROVIDER = AtariProvider()


def played(request: EnvironmentRequest, steps: int) -> tuple[list[np.ndarray], list[np.ndarray], list[dict]]:
    envs = PROVIDER.make(request)
    envs.reset()
    rng = np.random.default_rng(0)
    rewards, ends, infos = [], [], []
    for _ in range(steps):
        _, reward, terminated, truncated, info = envs.step(rng.integers(0, 4, request.num_envs))
        rewards.append(reward)
        ends.append(terminated | truncated)
        infos.append(info)
    envs.close()
    return rewards, ends, infos


def test_observations_are_stacks_of_four_grey_frames_and_actions_those_of_the_game() -> None:
    found = PROVIDER.describe(EnvironmentRequest("ALE/Breakout-v5"))
    assert found.observation_shape == (4, 84, 84)
    assert found.stack == 4
    assert found.action_space.n == 4
    assert not found.can_save_states
    assert PROVIDER.describe(EnvironmentRequest("ALE/Breakout-v5", options="full_actions=true")).action_space.n == 18


def test_images_have_the_size_that_is_asked_for() -> None:
    request = EnvironmentRequest("ALE/Pong-v5", num_envs=2, num_threads=1, options="size=42")
    assert PROVIDER.describe(request).observation_shape == (4, 42, 42)
    envs = PROVIDER.make(request)
    assert envs.reset()[0].shape == (2, 4, 42, 42)
    envs.close()
    with pytest.raises(ValueError, match="size must be at least 1, got 0"):
        PROVIDER.describe(EnvironmentRequest("ALE/Pong-v5", options="size=0"))


def test_in_training_a_lost_life_is_an_end_and_the_infos_are_of_whole_games() -> None:
    request = EnvironmentRequest("ALE/Breakout-v5", num_envs=2, seed=3, num_threads=1)
    rewards, ends, infos = played(request, 300)
    games = [info["episode"]["l"][info["_episode"]] for info in infos if info]
    assert sum(map(len, games)) >= 2
    assert np.sum(ends) >= 4 * sum(map(len, games))  # five lives per game
    evaluation = EnvironmentRequest("ALE/Breakout-v5", num_envs=2, seed=3, num_threads=1, is_training=False)
    same_rewards, game_ends, same_infos = played(evaluation, 300)
    assert np.array_equal(rewards, same_rewards)  # Breakout's first bricks are worth 1
    assert [bool(info) for info in infos] == [bool(info) for info in same_infos]
    assert np.sum(game_ends) == sum(map(len, games))


def test_returns_are_sums_of_the_games_own_rewards_though_training_clips_them() -> None:
    request = EnvironmentRequest("ALE/SpaceInvaders-v5", num_envs=2, seed=1, num_threads=1)
    rewards, _, infos = played(request, 500)
    assert set(np.unique(rewards)) == {0.0, 1.0}
    first = next(index for index, info in enumerate(infos) if info)
    env = int(np.flatnonzero(infos[first]["_episode"])[0])
    clipped = sum(reward[env] for reward in rewards[: first + 1])
    assert infos[first]["episode"]["r"][env] >= 5 * clipped  # every alien is worth at least 5 points
    assert infos[first]["episode"]["l"][env] == first + 1


def test_observations_are_not_overwritten_and_environments_have_the_seeds_of_their_numbers() -> None:
    envs = PROVIDER.make(EnvironmentRequest("ALE/Pong-v5", num_envs=2, seed=5, num_threads=1))
    second = PROVIDER.make(EnvironmentRequest("ALE/Pong-v5", num_envs=1, seed=5, first_env=1, num_threads=1))
    frames, other = envs.reset()[0], second.reset()[0]
    assert np.array_equal(frames[1:], other)
    kept = frames.copy()
    for _ in range(30):
        envs.step(np.array([2, 3]))
    assert np.array_equal(frames, kept)
    envs.close()
    second.close()


def test_human_scores_are_of_real_games() -> None:
    assert {f"ALE/{name}-v5" for name in HUMAN_SCORES} <= set(PROVIDER.ids())
    assert len(HUMAN_SCORES) == 49
    assert HUMAN_SCORES["Pong"].normalised(9.3) == 1
    assert PROVIDER.score_range(EnvironmentRequest("ALE/Adventure-v5")) is None


@pytest.mark.parametrize(
    ("request_", "message"),
    [
        (EnvironmentRequest("ALE/Pnog-v5"), "no Atari game 'ALE/Pnog-v5'; did you mean 'ALE/Pong-v5'"),
        (EnvironmentRequest("ALE/Pong-v5", options="sticky=0.25"), "did you mean 'sticky_actions'"),
        (EnvironmentRequest("ALE/Pong-v5", options="sticky_actions=2"), r"sticky_actions must be in \[0, 1\]"),
        (
            EnvironmentRequest("ALE/Pong-v5", difficulty="hard"),
            "`distribution_mode` is 'hard', but .* leave the option",
        ),
        (EnvironmentRequest("ALE/Pong-v5", options="episodic_life=maybe"), "episodic_life must be true or false"),
    ],
)
def test_bad_requests_are_named(request_: EnvironmentRequest, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        PROVIDER.describe(request_)
