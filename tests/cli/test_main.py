"""The command line as a whole: what it lists, how it complains, and with which exit code."""

from __future__ import annotations

import importlib
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
