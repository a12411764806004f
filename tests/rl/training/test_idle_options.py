"""Options that have no effect are refused, unless they come with a preset."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from gsprune.rl.algorithms.dqn.config import PRESETS as DQN_PRESETS
from gsprune.rl.algorithms.dqn.config import DQNConfig
from gsprune.rl.algorithms.ppo.config import PRESETS as PPO_PRESETS
from gsprune.rl.algorithms.ppo.config import PPOConfig
from gsprune.rl.training.config import TrainConfig
from gsprune.rl.training.idle_options import IGNORED_BY, without_idle
from gsprune.sweep.plan import read_study

DOCS = Path(__file__).parents[3] / "docs" / "sweeps"
PRESETS = [*PPO_PRESETS.values(), *DQN_PRESETS.values()]

OF_GROUPS: dict[str, Any] = {
    "importance": "l2",
    "scope": "global",
    "target": "macs",
    "round_to": 8,
    "min_channels": 4,
    "rescale": True,
    "compensate": "linear",
    "backend": "torch",
}
OF_THE_SCHEDULE: dict[str, Any] = {"sparsity": 0.5, "prune_begin": 0.1, "prune_end": 0.7}


@pytest.mark.parametrize("name", OF_GROUPS)
@pytest.mark.parametrize("pruning", ["none", "structured", "unstructured", "redo"])
@pytest.mark.parametrize("config", [PPOConfig(), DQNConfig()], ids=["ppo", "dqn"])
def test_an_option_of_group_pruning_is_refused_by_other_methods(config: TrainConfig, pruning: Any, name: str) -> None:
    value = OF_GROUPS[name]
    with pytest.raises(ValueError, match=rf"`{name}` has no effect with `pruning` {pruning}, got {value!r}; leave it"):
        replace(config, pruning=pruning, **{name: value}).check()
    replace(config, pruning="group", **{name: value}).check()


@pytest.mark.parametrize("name", OF_THE_SCHEDULE)
def test_the_schedule_is_read_by_masks_and_groups_alone(name: str) -> None:
    changes = {name: OF_THE_SCHEDULE[name]}
    for pruning in ("group", "structured", "unstructured"):
        PPOConfig(pruning=pruning, **changes).check()  # type: ignore[arg-type]
    for pruning in ("none", "redo"):
        with pytest.raises(ValueError, match=f"`{name}` has no effect with `pruning` {pruning}"):
            PPOConfig(pruning=pruning, **changes).check()  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (PPOConfig(latency_engine="onnxruntime"), "`latency_engine` has no effect with `target` channels"),
        (PPOConfig(latency_batch=8, target="params"), "`latency_batch` has no effect with `target` params"),
        (
            PPOConfig(target="latency", latency_budget_ms=1.0, sparsity=0.5),
            "`sparsity` has no effect with `target` latency",
        ),
        (PPOConfig(calibration_frames=64), "`calibration_frames` has no effect with `compensate` none"),
        (DQNConfig(pruning="none", calibration_frames=64), "`calibration_frames` has no effect with `pruning` none"),
        (PPOConfig(eval_interval_episodes=0, eval_points=3), "`eval_points` has no effect with `eval_interval_epis"),
        (
            DQNConfig(eval_interval_episodes=0, eval_episodes=0, eval_num_envs=3),
            "`eval_num_envs` has no effect with `eval_episodes` 0",
        ),
        (DQNConfig(pruning="none", prune_interval=10), "`prune_interval` has no effect with `pruning` none"),
        (PPOConfig(pruning="none", prune_interval=10), "`prune_interval` has no effect with `pruning` none"),
        (DQNConfig(replay_storage="memory", replay_spare=99_999), "`replay_spare` has no effect with `replay_storage`"),
        (DQNConfig(priority_alpha=0.0, priority_beta=1.0), "`priority_beta` has no effect with `priority_alpha` 0"),
        (DQNConfig(priority_alpha=0.0, priority_eps=1e-3), "`priority_eps` has no effect with `priority_alpha` 0"),
    ],
)
def test_an_option_that_others_switch_off_is_refused(config: TrainConfig, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        config.check()


@pytest.mark.parametrize(
    "config",
    [
        PPOConfig(target="latency", latency_budget_ms=1.0, latency_engine="compiled", latency_batch=4),
        PPOConfig(eval_interval_episodes=0, eval_num_envs=32),
        PPOConfig(compensate="bias", calibration_frames=64),
        PPOConfig(importance="reconstruction", calibration_frames=64),
        DQNConfig(pruning="redo", prune_interval=10),
        DQNConfig(replay_storage="memory", priority_alpha=0.0),
    ],
)
def test_options_that_have_an_effect_pass(config: TrainConfig) -> None:
    config.check()


@pytest.mark.parametrize("pruning", sorted(IGNORED_BY))
@pytest.mark.parametrize(
    ("name", "value", "hint"),
    [
        ("importance", "tailor", "did you mean 'taylor'"),
        ("importance", "nonsense", "must be one of activation"),
        ("scope", "globl", "did you mean 'global'"),
        ("target", "flops", "must be one of channels"),
        ("backend", "tritn", "did you mean 'triton'"),
        ("latency_engine", "eagr", "did you mean 'eager'"),
        ("amp", "fp16", "must be one of none, bf16"),
    ],
)
def test_an_unknown_name_is_refused_whatever_the_method(pruning: Any, name: str, value: str, hint: str) -> None:
    with pytest.raises(ValueError, match=rf"`{name}` must be one of .*got '{value}'") as error:
        PPOConfig(pruning=pruning, **{name: value}).check()  # type: ignore[arg-type]
    assert hint in str(error.value)


def test_an_unknown_method_is_refused() -> None:
    with pytest.raises(ValueError, match=r"`pruning` must be one of none, group.*did you mean 'structured'"):
        PPOConfig(pruning="structred").check()  # type: ignore[arg-type]


@pytest.mark.parametrize("pruning", sorted(IGNORED_BY))
@pytest.mark.parametrize("preset", PRESETS)
def test_presets_go_with_every_method(preset: TrainConfig, pruning: Any) -> None:
    without_idle(replace(preset, pruning=pruning), preset).check()


def test_only_values_of_the_preset_are_dropped() -> None:
    preset = PPO_PRESETS["quick"]
    assert without_idle(replace(preset, pruning="structured"), preset).round_to == 1
    assert without_idle(replace(preset, sparsity=0.5), preset).round_to == 4
    with pytest.raises(ValueError, match="`round_to` has no effect with `pruning` structured, got 8"):
        without_idle(replace(preset, pruning="structured", round_to=8), preset).check()


def test_every_option_that_is_named_exists() -> None:
    names = {field for config in (PPOConfig(), DQNConfig()) for field in vars(config)}
    assert {name for ignored in IGNORED_BY.values() for name in ignored} <= names


@pytest.mark.parametrize("name", ["small.yaml", "paper.yaml"])
def test_common_options_of_a_study_reach_only_methods_that_read_them(name: str) -> None:
    study = read_study(DOCS / name)
    for trial in study.trials(Path("out")):
        pruning = trial.arguments[trial.arguments.index("--pruning") + 1]
        given = {word.removeprefix("--").replace("-", "_") for word in trial.arguments if word.startswith("--")}
        assert not given & set(IGNORED_BY[pruning])
        if name == "small.yaml":
            assert ("round_to" in given) == (pruning == "group")
