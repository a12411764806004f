"""Where defaults come from: presets, runs that go on, and flags before both."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import tyro

from gsprune.cli.run_options import default_folder, option_values, refuse_changes
from gsprune.cli.train import TrainCommand
from gsprune.rl.algorithms.ppo.config import PRESETS

TRAIN_PPO = TrainCommand("ppo")


def parse(*argv: str) -> Any:
    return tyro.cli(TRAIN_PPO.Args, args=list(argv), default=TRAIN_PPO.defaults(argv))


def test_without_flags_the_options_are_the_published_ones() -> None:
    args = parse()
    assert args.preset == "paper"
    assert (args.total_timesteps, args.num_envs, args.width) == (25_000_000, 64, 2)


@pytest.mark.parametrize("argv", [("--preset", "quick"), ("--preset=quick",)])
def test_a_preset_sets_its_own_sizes(argv: tuple[str, ...]) -> None:
    args = parse(*argv)
    assert args.preset == "quick"
    assert args.total_timesteps == PRESETS["quick"].total_timesteps
    assert args.num_envs == PRESETS["quick"].num_envs


@pytest.mark.parametrize("argv", [("--preset", "quick", "--num-envs", "5"), ("--num-envs", "5", "--preset", "quick")])
def test_flags_come_before_the_preset_in_any_order(argv: tuple[str, ...]) -> None:
    args = parse(*argv)
    assert args.num_envs == 5
    assert args.num_steps == PRESETS["quick"].num_steps


def test_an_unknown_preset_is_refused_with_the_known_ones() -> None:
    with pytest.raises(ValueError, match="there is no preset 'quik'; the presets are paper, quick"):
        parse("--preset", "quik")


def test_a_resumed_run_has_its_own_options(tmp_path: Path) -> None:
    begun = parse("--preset", "quick", "--seed", "7", "--learning-rate", "0.001")
    (tmp_path / "config.json").write_text(json.dumps({"algorithm": "ppo", **option_values(begun)}))
    args = parse("--resume", str(tmp_path))
    assert args.resume == tmp_path
    assert option_values(args) == option_values(begun)
    refuse_changes(args, tmp_path)
    refuse_changes(parse("--resume", str(tmp_path), "--checkpoint-minutes", "1", "--workers", "2"), tmp_path)
    with pytest.raises(ValueError, match=r"--seed is 8, but the run in .* was started with 7; leave the option out"):
        refuse_changes(parse("--resume", str(tmp_path), "--seed", "8"), tmp_path)


def test_a_run_of_another_algorithm_is_not_resumed(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"algorithm": "dqn"}))
    with pytest.raises(ValueError, match="is a run of dqn; resume it with gsprune train dqn --resume"):
        parse("--resume", str(tmp_path))


def test_resume_and_run_dir_exclude_each_other(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"algorithm": "ppo", **option_values(parse())}))
    args = parse("--resume", str(tmp_path), "--run-dir", "elsewhere")
    with pytest.raises(ValueError, match="--run-dir is for new runs"):
        refuse_changes(args, tmp_path)


def test_a_folder_name_says_what_is_in_it() -> None:
    folder = default_folder(parse("--env-id", "starpilot", "--width", "1.5", "--seed", "3"), "ppo")
    assert str(folder).startswith("runs/starpilot-ppo-impoola1.5-group-seed3-")
