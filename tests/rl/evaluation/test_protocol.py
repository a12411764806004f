from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from torch import nn

from gsprune.rl.algorithms.ppo.actions import Categorical, sampled_policy
from gsprune.rl.evaluation.episodes import NOISE_SIGMAS, Policy
from gsprune.rl.evaluation.protocol import CLEAN_TRACKS, NOISE_TRACKS, ProtocolConfig, Track, evaluate_tracks
from gsprune.rl.evaluation.scores import score_range

pytest.importorskip("procgen")

BIGFISH = {"env_id": "bigfish"}


def uniform(generator: torch.Generator) -> Policy:
    return sampled_policy(Categorical([15], ()), lambda x: torch.zeros(len(x), 15), nn.Identity(), generator)


@pytest.mark.parametrize(
    ("episodes", "num_envs", "environments", "each"),
    [(1_000, 64, 64, 16), (64, 64, 64, 1), (3, 64, 3, 1), (65, 64, 64, 2), (10, 1, 1, 10)],
)
def test_episodes_are_rounded_up_to_the_same_number_everywhere(
    episodes: int, num_envs: int, environments: int, each: int
) -> None:
    config = ProtocolConfig(BIGFISH, episodes=episodes, num_envs=num_envs)
    assert (config.environments, config.episodes_per_env) == (environments, each)


def test_the_noise_track_plays_the_test_levels_with_each_sigma() -> None:
    assert [track.noise_sigma for track in NOISE_TRACKS] == list(NOISE_SIGMAS)
    assert {track.levels for track in NOISE_TRACKS} == {"test"}
    assert [(track.name, track.levels, track.noise_sigma) for track in CLEAN_TRACKS] == [
        ("train", "train", 0.0),
        ("test", "test", 0.0),
    ]


def test_results_repeat_from_the_same_seed_and_leave_global_randomness_alone() -> None:
    config = ProtocolConfig(BIGFISH, episodes=4, num_envs=4, seed=3)
    states = torch.get_rng_state(), np.random.get_state()[1]
    first = evaluate_tracks(uniform, config, CLEAN_TRACKS)
    assert first == evaluate_tracks(uniform, config, CLEAN_TRACKS)
    assert torch.equal(states[0], torch.get_rng_state())
    np.testing.assert_array_equal(states[1], np.random.get_state()[1])
    assert list(first) == ["train", "test"]
    result = first["test"]
    assert len(result.returns) == 4
    assert result.mean == pytest.approx(np.mean(result.returns))
    assert result.low <= result.mean <= result.high
    assert result.normalised == pytest.approx(score_range("bigfish", "easy").normalised(result.mean))
    assert json.loads(json.dumps(asdict(result)))["mean"] == result.mean


def first_frames(config: ProtocolConfig, tracks: Sequence[Track]) -> dict[str, torch.Tensor]:
    """What the policy sees first on each track."""
    frames: dict[str, torch.Tensor] = {}
    names: list[str] = []

    def record(_: torch.Generator) -> Policy:
        def act(observations: torch.Tensor) -> npt.NDArray[Any]:
            frames.setdefault(names[-1], observations)
            return np.zeros(len(observations), dtype=np.int64)

        return act

    evaluate_tracks(record, config, tracks, on_track=lambda track: names.append(track.name))
    return frames


def test_train_levels_are_the_training_set_and_test_levels_are_not() -> None:
    frames = first_frames(ProtocolConfig({"env_id": "coinrun"}, episodes=2, num_envs=2), CLEAN_TRACKS)
    assert list(frames) == ["train", "test"]
    assert not torch.equal(frames["train"], frames["test"])


def test_the_noisy_track_plays_the_levels_of_the_plain_one_with_noise_on_top() -> None:
    frames = first_frames(
        ProtocolConfig({"env_id": "coinrun"}, episodes=1, num_envs=1),
        [Track("plain", "test"), Track("noisy", "test", 5.0)],
    )
    difference = frames["noisy"].float() - frames["plain"].float()
    assert 3 < difference.std() < 7  # clipping makes it a little less than 5


def test_an_evaluation_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="`episodes` must be at least 1, got 0"):
        ProtocolConfig(BIGFISH, episodes=0)
    with pytest.raises(ValueError, match="`num_envs` must be at least 1, got 0"):
        ProtocolConfig(BIGFISH, num_envs=0)
