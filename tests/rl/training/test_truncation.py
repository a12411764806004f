"""Truncated episodes of a step: those that the game itself did not end, with their last observations."""

from __future__ import annotations

import numpy as np
import pytest

from gsprune.rl.training.truncation import truncated_episodes

TERMINATED = np.array([False, True, True, False])
TRUNCATED = np.array([True, False, True, False])
FINAL = np.full(4, None, dtype=object)  # as gymnasium reports them
FINAL[:3] = [np.full((1, 2, 2), number, np.uint8) for number in range(3)]


def test_an_episode_that_the_game_ended_in_the_same_step_is_not_truncated() -> None:
    episodes = truncated_episodes(TERMINATED, TRUNCATED, {"final_obs": FINAL})
    assert episodes is not None
    assert episodes.envs.tolist() == [0]
    np.testing.assert_array_equal(episodes.observations, FINAL[0][None])


def test_without_truncation_there_are_none() -> None:
    assert truncated_episodes(TERMINATED, np.zeros(4, bool), {"final_obs": FINAL}) is None


def test_a_truncated_episode_without_its_last_observation_is_an_error() -> None:
    with pytest.raises(ValueError, match=r"put it into infos\['final_obs'\]\[0\], or report `terminated`"):
        truncated_episodes(TERMINATED, TRUNCATED, {})
