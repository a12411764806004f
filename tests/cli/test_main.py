"""The command line as a whole: what it lists, how it complains, and with which exit code."""

from __future__ import annotations

import importlib
import re
import sys
from dataclasses import fields
from pathlib import Path

import pytest
import tyro

import gsprune
from gsprune.cli import COMMANDS, command_of, main

QUICK = ["train", "ppo", "--preset", "quick"]


def test_help_lists_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    output = capsys.readouterr().out
    assert all(f"gsprune {command}" in output for command in COMMANDS)


def test_the_version_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"gsprune {gsprune.__version__}\n"


def test_train_lists_its_algorithms(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "--help"]) == 0
    listed = [line.split()[1:3] for line in capsys.readouterr().out.splitlines() if line.startswith("  gsprune")]
    assert listed == [["train", "ppo"], ["train", "dqn"]]
    assert main(["train"]) == 2
    assert "gsprune train needs one of these" in capsys.readouterr().err


@pytest.mark.parametrize("argv", [[], ["trian", "ppo"], ["train"], ["train", "a2c"]])
def test_an_unknown_command_is_answered_with_the_known_ones(
    argv: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(argv) == 2
    errors = capsys.readouterr().err
    assert "gsprune train ppo" in errors


@pytest.mark.parametrize("command", COMMANDS)
def test_every_option_of_every_command_is_documented(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit_info:
        main([*command.split(), "--help"])
    assert exit_info.value.code == 0
    assert f"gsprune {command}" in capsys.readouterr().out
    args_type = command_of(command).Args
    documentation = "".join(
        Path(importlib.import_module(base.__module__).__file__ or "").read_text()
        for base in args_type.__mro__[:-1]
        if base.__module__.startswith("gsprune")
    )
    for field in fields(args_type):
        _, _, after = documentation.partition(f"\n    {field.name}: ")
        assert after.split("\n", 2)[1].startswith('    """'), f"{field.name} has no help"


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--env-id", "bigfsh"], "there is no game 'bigfsh'; did you mean 'bigfish'?"),
        (["--sparsity", "1"], "`sparsity` must be in [0, 1), 0.8 removes 80 %, got 1.0"),
        (["--width", "0.5"], "`width` must be at least 1, got 0.5"),
        (["--prune-begin", "0.9"], "`prune_begin` must not be after `prune_end`"),
        (["--preset", "quik"], "the presets are paper, quick"),
        (["--resume", "/nowhere"], "'/nowhere' is not a run folder"),
        (["--run-dir", "/dev/null/run"], "choose another with --run-dir"),
        (["--device", "cuda:99"], "use --device cpu"),
    ],
)
def test_bad_input_is_one_line_with_the_way_out_and_exit_code_2(
    flags: list[str], message: str, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main([*QUICK, *flags]) == 2
    output = capsys.readouterr()
    assert output.out == ""
    assert output.err.startswith("gsprune: error: ")
    assert output.err.count("\n") == 1
    assert message in output.err
    assert list(tmp_path.iterdir()) == []


def test_a_value_of_the_wrong_type_is_exit_code_2(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit_info:
        main([*QUICK, "--num-envs", "many"])
    assert exit_info.value.code == 2
    assert "--num-envs" in capsys.readouterr().err


def test_train_without_procgen_fails_in_one_line_before_a_run_folder_is_made(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(__import__("sys").modules, "procgen", None)
    assert main(QUICK) == 1
    errors = capsys.readouterr().err
    assert errors.startswith("gsprune: error: ")
    assert "procgen" in errors.lower()
    assert errors.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_a_missing_extra_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "tyro", None)
    assert main(["inspect"]) == 1
    assert "pip install -c constraints.txt '.[train]'" in capsys.readouterr().err
    monkeypatch.undo()
    assert tyro is not None


OWN = """
import gymnasium
import numpy as np
from torch import nn


class Crash(gymnasium.Env):
    observation_space = gymnasium.spaces.Box(0, 255, (36, 36), np.uint8)
    action_space = gymnasium.spaces.Discrete(2)
    steps = 0

    def reset(self, **_):
        return np.zeros((36, 36), np.uint8), {}

    def step(self, action):
        self.steps += 1
        if self.steps == 3:
            raise RuntimeError("the simulator crashed")
        return np.zeros((36, 36), np.uint8), 0.0, False, False, {}


class Odd(nn.Module):
    def __init__(self, observation_shape):
        raise ValueError("the height must be even")


class Broken(nn.Module):
    def __init__(self, observation_shape):
        self.rows = {}["height"]


def first_rows(matrix):
    return matrix.rows
"""


@pytest.mark.parametrize(
    ("options", "code", "message"),
    [
        (["--encoder", "own_parts:Odd"], 2, r"the height must be even \(.*own_parts.py, line \d+, in __init__\)\n"),
        (["--encoder", "own_parts:Broken"], 1, r"KeyError: 'height' \(.*own_parts.py, line \d+, in __init__\)\n"),
        (
            ["--encoder", "wrong_parts:Odd"],
            2,
            "'wrong_parts', which cannot be imported: .*wrong_parts.py, line 1",
        ),
        (["--importance", "own_parts:first_rows"], 1, "failed on .*'Tensor' object has no attribute 'rows'"),
        ([], 1, r"raised RuntimeError: the simulator crashed \(.*own_parts.py, line \d+, in step\)\n"),
    ],
)
def test_a_fault_in_code_of_the_user_is_one_line_with_its_place(
    options: list[str], code: int, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    (tmp_path / "own_parts.py").write_text(OWN)
    (tmp_path / "wrong_parts.py").write_text("def wrong(:")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    small = ["--num-envs", "1", "--num-steps", "8", "--num-minibatches", "1", "--total-timesteps", "16"]
    small += ["--env-options", "asynchronous=false", "--run-dir", "run"]
    encoder = [] if "--encoder" in options else ["--encoder", "nature", "--width", "1"]
    try:
        assert main(["train", "ppo", "--env-id", "own_parts:Crash", *small, *encoder, *options]) == code
    finally:
        sys.modules.pop("own_parts", None)
    streams = capsys.readouterr()
    error = streams.err.partition("gsprune: error: ")[2]
    assert re.search(message, error)
    assert error.count("\n") == 1
    assert "Traceback" not in streams.err
    assert ("resume from the last checkpoint with" in streams.out) == (not options)
