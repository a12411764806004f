import dataclasses

import pytest

from gsprune.rl.algorithms.dqn.config import PRESETS, DQNConfig


def test_the_defaults_are_the_published_ones():
    config = DQNConfig()
    published = {
        "total_timesteps": 25_000_000,
        "num_envs": 128,
        "replay_capacity": 1_000_000,
        "batch_size": 512,
        "n_step": 3,
        "gamma": 0.99,
        "priority_alpha": 0.5,
        "priority_beta": 0.5,
        "priority_eps": 1e-6,
        "target_interval": 64_000,
        "learning_starts": 250_000,
        "epsilon_final": 0.025,
        "exploration_fraction": 0.1,
        "max_grad_norm": 10.0,
        "prune_interval": 2_000,
        "sparsity": 0.8,
    }
    assert {name: getattr(config, name) for name in published} == published
    assert config.scaled_learning_rate(base=1e-4, nature=1e-4) == 1e-4


def test_the_preset_for_atari_has_the_values_of_cleanrl():
    config = PRESETS["atari"]
    published = {
        "total_timesteps": 10_000_000,
        "learning_rate": 1e-4,
        "adam_eps": 1e-8,
        "max_grad_norm": None,
        "replay_capacity": 1_000_000,
        "gamma": 0.99,
        "target_interval": 1_000,
        "batch_size": 32,
        "epsilon_final": 0.01,
        "exploration_fraction": 0.1,
        "learning_starts": 80_000,
        "num_envs": 4,  # one update after each of their steps: CleanRL's train frequency of 4
        "n_step": 1,
        "priority_alpha": 0.0,
        "encoder": "nature",
        "num_features": 512,
        "width": 1,
    }
    assert {name: getattr(config, name) for name in published} == published


@pytest.mark.parametrize("name", sorted(PRESETS))
def test_the_presets_are_valid(name):
    PRESETS[name].check()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"batch_size": 0}, "`batch_size` must be at least 1, got 0"),
        ({"epsilon_final": 1.5}, r"`epsilon_final` must be in \[0, 1\], got 1.5"),
        ({"exploration_fraction": 0.0}, r"`exploration_fraction` must be in \(0, 1\], got 0.0"),
        ({"adam_eps": 0.0}, "`adam_eps` must be above 0, got 0.0"),
        ({"max_grad_norm": 0.0}, "`max_grad_norm` must be above 0, got 0.0"),
        ({"replay_capacity": 511}, r"`replay_capacity` must be at least num_envs \* \(n_step \+ 1\) = 512, got 511"),
        ({"learning_starts": 100}, r"`learning_starts` must be at least num_envs \* \(n_step \+ 1\) = 512, got 100"),
        ({"total_timesteps": 250_000}, "`learning_starts` must be below total_timesteps = 250000, got 250000"),
        (
            {"total_timesteps": 6_000, "learning_starts": 600},
            r"`total_timesteps` must be at least num_envs \* log_interval = 6400, got 6000",
        ),
        ({"replay_spare": 1_000}, r"`replay_spare` must be at least 2 \* num_envs \* log_interval = 12800, got 1000"),
    ],
)
def test_a_wrong_option_is_named_with_its_value_and_constraint(changes, message):
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(DQNConfig(), **changes).check()


@pytest.mark.parametrize(
    ("preset", "interval", "frames"), [("quick", 10, 32), ("quick", 200, 512), ("atari", 1000, 512)]
)
def test_steps_that_follow_soon_calibrate_on_a_twentieth_of_what_is_learnt_between_them(
    preset: str, interval: int, frames: int
) -> None:
    config = dataclasses.replace(PRESETS[preset], compensate="linear", prune_interval=interval)
    assert config.num_calibration_frames == frames
    assert dataclasses.replace(config, calibration_frames=99).num_calibration_frames == 99
