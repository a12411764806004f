"""The help of training commands: groups, defaults of the preset, whole lines, suggestions."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path

import pytest

from gsprune.cli import COMMANDS, command_of, main
from gsprune.cli.option_groups import GROUPS, groups_of
from gsprune.rl.training.config import TrainConfig

TITLES = ["environment", "network", "pruning", "algorithm", "evaluation", "machine", "run"]


Help = Callable[..., str]


@pytest.fixture
def help_of(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Help:
    monkeypatch.setenv("COLUMNS", "100")

    def text_of(*argv: str) -> str:
        with pytest.raises(SystemExit) as ended:
            main([*argv, "--help"])
        assert ended.value.code in (0, None)
        return capsys.readouterr().out

    return text_of


@pytest.mark.parametrize("command", ["train ppo", "train dqn"])
def test_every_option_is_in_one_group(command: str) -> None:
    args_type = command_of(command).Args
    grouped = [option for options in groups_of(args_type).values() for option in options]
    assert sorted(grouped) == sorted(field.name for field in fields(args_type))


def test_every_option_that_trainers_share_has_an_entry() -> None:
    listed = {option for options in GROUPS.values() for option in options}
    assert {field.name for field in fields(TrainConfig)} <= listed


def test_the_help_has_groups_and_the_defaults_of_the_preset(help_of: Help) -> None:
    output = help_of("train", "ppo", "--preset", "quick")
    assert re.findall(r"^[╭─ ]*(\w+) options", output, re.MULTILINE) == TITLES
    words = " ".join(output.replace("│", " ").split())
    assert re.search(r"--env-id STR .*? \(default: starpilot\) --", words)
    assert re.search(r"--total-timesteps INT .*? \(default: 24576\) --", words)


def test_a_docstring_of_several_lines_is_one_paragraph(help_of: Help) -> None:
    lines = [line.strip("│ ") for line in help_of("train", "ppo").splitlines()]
    start, end = (next(i for i, line in enumerate(lines) if line.startswith(flag)) for flag in ("--preset", "--run-d"))
    assert all(len(line) > 60 for line in lines[start : end - 1])
    assert lines[end - 1].endswith("(default: paper)")


@pytest.mark.parametrize("command", COMMANDS)
def test_the_help_fits_the_terminal_and_shows_no_empty_defaults(command: str, help_of: Help) -> None:
    output = help_of(*command.split())
    assert max(map(len, output.splitlines())) <= 100
    assert "(required)" in output or "(default: " in output or "unset" in output
    assert not re.search(r"\{None\}|default: (None|''|)\)|\[\[", output)


def test_a_misspelt_choice_gets_a_suggestion(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "ppo", "--scope", "globl"]) == 2
    assert "`--scope` must be one of local, global, isomorphic, got 'globl'; did you mean" in capsys.readouterr().err
    assert main(["train", "ppo", "--preset=quik"]) == 2
    assert "did you mean 'quick'?" in capsys.readouterr().err


def test_a_misspelt_choice_beside_numbers_or_in_a_list_gets_a_suggestion(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "ppo", "--round-to", "onnxruntim"]) == 2
    error = capsys.readouterr().err
    assert "`--round-to` must be a number, or one of onnxruntime" in error
    assert "did you mean 'onnxruntime'?" in error
    assert main(["latency", "--round-to", "8", "ethosu"]) == 2
    assert "got 'ethosu'; did you mean 'ethos-u'?" in capsys.readouterr().err
    assert main(["latency", "--encoder", "impola"]) == 2
    assert "`--encoder` must be one of nature, impala, impoola, got 'impola'" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["trian", "ppo"], "there is no command 'trian ppo'; did you mean 'train ppo'?"),
        (["train", "pp"], "there is no command 'train pp'; did you mean 'train ppo'?"),
        (["evl", "runs/a"], "there is no command 'evl'; did you mean 'eval'?"),
        (["train", "--sparsity", "0.5"], "gsprune train needs one of these"),
    ],
)
def test_a_misspelt_command_gets_a_suggestion(
    words: list[str], complaint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(words) == 2
    assert capsys.readouterr().err.startswith(f"gsprune: {complaint}\n")


def test_a_misspelt_option_gets_a_suggestion(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["train", "ppo", "--sparsty", "0.5"])
    captured = capsys.readouterr()
    assert "--sparsity" in captured.err + captured.out


def test_bash_completes_commands_and_options(tmp_path: Path) -> None:
    script = tmp_path / "gsprune.bash"
    with pytest.raises(SystemExit) as exit_info:
        main(["--tyro-write-completion", "bash", str(script)])
    assert exit_info.value.code in (0, None)
    ask = (
        f"source {script}; f=$(complete -p gsprune | sed 's/.*-F \\([^ ]*\\).*/\\1/');"
        " COMP_WORDS=(gsprune train ppo --spar); COMP_CWORD=3; $f gsprune --spar ppo; echo ${COMPREPLY[@]}"
    )
    answer = subprocess.run(["bash", "-c", ask], capture_output=True, text=True, check=True).stdout
    assert answer.strip() == "--sparsity"
    assert all(command.split()[0] in script.read_text() for command in COMMANDS)


@pytest.mark.parametrize("words", [["bash"], ["tcsh", "-"]])
def test_completion_without_a_file_or_for_another_shell_is_refused(
    capsys: pytest.CaptureFixture[str], words: list[str]
) -> None:
    assert main(["--tyro-write-completion", *words]) == 2
    assert "needs a shell (bash, zsh) and a file" in capsys.readouterr().err


@pytest.mark.parametrize("command", ["sweep", "eval", "export", "compact"])
def test_the_help_of_commands_for_every_environment_names_levels_only_with_procgen(command: str, help_of: Help) -> None:
    text = " ".join(help_of(command).replace("│", " ").split())
    assert "the run folder" in text or "YAML file" in text
    for words in ("Procgen games", "test levels", "seed of levels"):
        assert words not in text
