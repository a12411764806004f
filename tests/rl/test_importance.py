"""`--importance`: the registered criteria are in the help, and module:name is the user's own."""

from __future__ import annotations

from pathlib import Path

import pytest

import gsprune
from gsprune.importance import CRITERIA, L2
from gsprune.rl.importance import configured_importance

OWN = """
import gsprune
from gsprune.importance import L1

class Mine(L1):
    pass

def largest(matrix):
    return matrix.abs().amax(dim=1)
"""


def test_a_criterion_of_a_module_in_the_working_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "own_criteria.py").write_text(OWN)
    monkeypatch.chdir(tmp_path)
    assert type(configured_importance("own_criteria:Mine").criterion).__name__ == "Mine"
    assert isinstance(configured_importance("own_criteria:largest").criterion, gsprune.Criterion)
    assert isinstance(configured_importance("l2").criterion, L2)
    with pytest.raises(ValueError, match="has no 'Yours'"):
        configured_importance("own_criteria:Yours")


def test_the_help_names_every_criterion(capsys: pytest.CaptureFixture[str]) -> None:
    from gsprune.cli import main

    with pytest.raises(SystemExit):
        main(["train", "ppo", "--help"])
    shown = " ".join(capsys.readouterr().out.replace("│", " ").split())
    listed = shown.split("score of channels, highest kept: ")[1].split(";")[0]
    assert set(listed.replace(" or", ",").replace(" ", "").split(",")) >= set(CRITERIA)
