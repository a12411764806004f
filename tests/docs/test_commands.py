"""The commands of gsprune on the pages are accepted: their options exist, and fit together."""

from __future__ import annotations

import importlib
import re
import shlex
from pathlib import Path

import pytest

from gsprune.cli import COMMANDS, main

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *ROOT.glob("docs/**/*.md"), *ROOT.glob("bench/results/*.md")]
COMMAND = re.compile(rf"(?:^|&& |--no-python )gsprune ((?:{'|'.join(COMMANDS)})\b.*)", re.MULTILINE)
TESTED_ELSEWHERE = (
    "minatar.yaml",
    "minatar-more.yaml",
    "minatar-dropped.yaml",
    "minatar-dqn.yaml",
    "minatar-three.yaml",
    "minatar-wide.yaml",
    "pong.yaml",
    "--resume",
    "--help",
    "...",
    "camera:",
    "my_module:",
)


def commands() -> list[str]:
    """The commands in blocks, and those in the text that have options."""
    found = set()
    for text in (page.read_text() for page in PAGES):
        blocks = "\n".join(re.findall(r"^```\n(.*?)^```", text, flags=re.DOTALL | re.MULTILINE)).replace("\\\n", " ")
        spans = (" ".join(span.split()) for span in re.findall(r"`(gsprune [^`]* --[^`]*)`", text))
        found |= {command for source in (blocks, *spans) for command in COMMAND.findall(source)}
    return sorted(command for command in found if not any(part in command for part in TESTED_ELSEWHERE))


def test_commands_are_found() -> None:
    assert "train ppo --preset quick" in commands()
    assert any("--target latency" in command for command in commands())


@pytest.mark.parametrize("command", commands())
def test_a_command_is_accepted(
    command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(ROOT)
    word = command.split(maxsplit=1)[0]
    module = importlib.import_module(f"gsprune.cli.{word}")
    words = shlex.split(command, comments=True)
    if word == "train":
        monkeypatch.setattr(module, "run_training", lambda config, *_: config.check())
    elif word == "sweep":
        words += ["--dry-run", "--out", str(tmp_path / "out")]
    else:
        monkeypatch.setattr(module, "main", lambda _: 0)
    assert main(words) == 0, capsys.readouterr().err
