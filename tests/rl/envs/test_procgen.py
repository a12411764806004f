"""Procgen as a vector environment: layout, ends of episodes, levels, states."""

from __future__ import annotations

import gc
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
from gymnasium.vector import AutoresetMode

from gsprune.errors import MissingExtraError
from gsprune.rl.envs import procgen as envs_module
from gsprune.rl.envs.procgen import GAMES, NUM_ACTIONS, EnvConfig, ProcgenVectorEnv
from gsprune.rl.envs.provider import EnvironmentRequest

CONFIG = EnvConfig.of(EnvironmentRequest("bigfish", 4, seed=3))


def play(env: ProcgenVectorEnv, actions: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """All frames, rewards and ends of some steps."""
    outcomes = [env.step(row) for row in actions]
    return tuple(np.stack([outcome[i] for outcome in outcomes]) for i in range(3))  # type: ignore[return-value]


def random_actions(num_steps: int, num_envs: int = 4) -> np.ndarray:
    return np.random.default_rng(0).integers(0, NUM_ACTIONS, (num_steps, num_envs))


def test_frames_are_bytes_with_colours_first_by_shape_and_last_in_memory() -> None:
    env = ProcgenVectorEnv(CONFIG, 0)
    frames, infos = env.reset()
    assert infos == {}
    assert frames.shape == (4, 3, 64, 64)
    assert frames.dtype == np.uint8
    assert frames.transpose(0, 2, 3, 1).flags.c_contiguous
    assert env.observation_space.contains(frames)
    assert env.metadata["autoreset_mode"] == AutoresetMode.SAME_STEP
    env.close()


def test_episode_statistics_are_right_across_automatic_resets() -> None:
    env = ProcgenVectorEnv(CONFIG, 0)
    env.reset()
    running_returns, running_lengths, num_ends = np.zeros(4), np.zeros(4, int), 0
    for actions in random_actions(300):
        _, rewards, terminated, truncated, infos = env.step(actions)
        running_returns += rewards
        running_lengths += 1
        assert not truncated.any()
        assert ("episode" in infos) == terminated.any()
        if terminated.any():
            num_ends += terminated.sum()
            np.testing.assert_array_equal(infos["_episode"], terminated)
            np.testing.assert_array_equal(infos["episode"]["r"][terminated], running_returns[terminated])
            np.testing.assert_array_equal(infos["episode"]["l"][terminated], running_lengths[terminated])
            running_returns[terminated] = 0
            running_lengths[terminated] = 0
    assert num_ends > 4
    env.close()


def test_the_same_seed_plays_the_same_and_another_seed_does_not() -> None:
    same, again, other = (ProcgenVectorEnv(replace(CONFIG, seed=seed), 0) for seed in (3, 3, 4))
    first_frames = [env.reset()[0] for env in (same, again, other)]
    np.testing.assert_array_equal(first_frames[0], first_frames[1])
    assert (first_frames[0] != first_frames[2]).any()
    actions = random_actions(50)
    for one, two in zip(play(same, actions), play(again, actions), strict=True):
        np.testing.assert_array_equal(one, two)
    np.testing.assert_array_equal(other.reset(seed=3)[0], first_frames[0])


def test_reset_abandons_the_running_episodes() -> None:
    env = ProcgenVectorEnv(CONFIG, 0)
    env.reset()
    play(env, random_actions(10))
    env.reset()
    while True:
        _, _, terminated, _, infos = env.step(np.full(4, 4))
        if terminated.any():
            break
    steps_since_reset = infos["episode"]["l"].max()
    env.reset()
    env.step(np.full(4, 4))
    assert env.get_state().arrays["lengths"].tolist() == [1, 1, 1, 1]
    assert steps_since_reset > 1


@pytest.mark.parametrize("game", GAMES)
def test_every_game_goes_on_bit_for_bit_from_a_state(game: str) -> None:
    config = EnvConfig.of(EnvironmentRequest(game, 2, seed=1))
    env, other = ProcgenVectorEnv(config, 0), ProcgenVectorEnv(config, 1)
    env.reset()
    frames, _, _ = play(env, random_actions(40, 2))
    state = env.get_state()
    other.reset()
    np.testing.assert_array_equal(other.set_state(state), frames[-1])
    actions = random_actions(60, 2)
    for expected, actual in zip(play(env, actions), play(other, actions), strict=True):
        np.testing.assert_array_equal(expected, actual)
    for name, array in env.get_state().arrays.items():
        np.testing.assert_array_equal(array, other.get_state().arrays[name])


def test_a_state_of_another_configuration_is_refused() -> None:
    state = ProcgenVectorEnv(CONFIG, 0).get_state()
    other = ProcgenVectorEnv(replace(CONFIG, distribution_mode="hard"), 0)
    with pytest.raises(ValueError, match="create it with the configuration of the state"):
        other.set_state(state)


def test_training_plays_few_levels_and_testing_all() -> None:
    assert EnvConfig.of(EnvironmentRequest("coinrun")).num_levels == 200
    assert EnvConfig.of(EnvironmentRequest("coinrun", difficulty="hard")).num_levels == 500
    assert EnvConfig.of(EnvironmentRequest("coinrun", split="test")).num_levels == 0


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"game": "bigfsh"}, "no game 'bigfsh'; did you mean 'bigfish'"),
        ({"game": "pong"}, "no game 'pong'; the games are bigfish, "),
        ({"num_envs": 0}, "`num_envs` must be at least 1, got 0"),
        ({"distribution_mode": "extreme"}, "must be 'easy' or 'hard', got 'extreme'"),
        ({"seed": -1}, r"`seed` must be in \[0, 2\*\*31 - 1\), got -1"),
    ],
)
def test_a_bad_configuration_is_refused_with_the_way_out(changes: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        replace(CONFIG, **changes)  # type: ignore[arg-type]


def test_options_at_reset_are_refused() -> None:
    with pytest.raises(ValueError, match="`options` must be empty"):
        ProcgenVectorEnv(CONFIG, 0).reset(options={"level": 3})


def test_creating_environments_prints_nothing() -> None:
    program = (
        "from gsprune.rl.envs.procgen import EnvConfig, ProcgenVectorEnv\n"
        "ProcgenVectorEnv(EnvConfig('bigfish', 1), 0).reset()"
    )
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert result.stdout == ""
    assert result.stderr == ""


@pytest.mark.parametrize(
    ("version", "machine", "message"),
    [
        ((3, 11), "x86_64", "in a clone of gsprune run: pip install -c constraints.txt '.[train]'"),
        ((3, 13), "x86_64", "no wheel for Python 3.13 on linux x86_64. Use Python 3.10, 3.11 or 3.12"),
        ((3, 14), "x86_64", "no wheel for Python 3.14 on linux x86_64"),
        ((3, 12), "aarch64", "no wheel for Python 3.12 on linux aarch64"),
    ],
)
def test_missing_procgen_says_how_to_get_it(
    monkeypatch: pytest.MonkeyPatch, version: tuple[int, int], machine: str, message: str
) -> None:
    class Version(tuple[int, int]):
        major, minor = version

    monkeypatch.setitem(sys.modules, "procgen", None)
    monkeypatch.setattr(envs_module.sys, "version_info", Version(version))
    monkeypatch.setattr(envs_module.platform, "machine", lambda: machine)
    with pytest.raises(MissingExtraError) as caught:
        ProcgenVectorEnv(CONFIG, 0)
    assert message in str(caught.value)


def test_games_that_nobody_closed_are_not_collected_while_others_are_made(monkeypatch: pytest.MonkeyPatch) -> None:
    # Their end asks for the lock that the making of others holds.
    collecting: list[bool] = []
    monkeypatch.setattr(envs_module, "import_procgen", lambda: lambda **_: collecting.append(gc.isenabled()))
    envs_module._make_games(EnvConfig("bigfish", 1), 0)
    assert collecting == [False]
    assert gc.isenabled()
