"""Trials on a Ray cluster: two at a time, and one whose worker is killed is taken up again."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import pytest

import gsprune
from gsprune.cli import main
from gsprune.errors import install_command
from gsprune.sweep.ray_launcher import RayLauncher

SCRIPT = Path(__file__).parents[1] / "support" / "ray_sweep.py"


def test_a_trial_whose_worker_is_killed_is_taken_up_again(tmp_path: Path) -> None:
    if importlib.util.find_spec("ray") is None:
        pytest.skip(f"ray is not installed: {install_command('distributed')}")
    # As in a clone beside an installed package: Ray's workers have the current folder first in their path.
    (tmp_path / "gsprune").mkdir()
    (tmp_path / "gsprune" / "__init__.py").write_text("raise ImportError('sources without the compiled core')\n")
    # In a process of its own, with the warnings of a library that the tests' settings would make errors.
    command = [sys.executable, "-W", "ignore", str(SCRIPT), str(tmp_path)]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=900)
    assert done.returncode == 0, done.stderr
    outcome = json.loads(done.stdout.splitlines()[-1])
    assert outcome["statuses"] == ["finished", "finished"]
    assert outcome["restarts"] == [1, 0]
    assert ["running", "running"] in outcome["seen"]
    assert ["waiting", "running"] in outcome["seen"]
    assert outcome["logs"] == [["begun", "resumed"], ["begun"]]
    assert outcome["the killed worker's trial has ended"]


def test_without_ray_the_error_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(gsprune.MissingExtraError, match=r"pip install -c constraints.txt \'\.\[distributed\]\'"):
        RayLauncher({})


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--address", "auto"], "add --engine ray"),
        (["--engine", "ray", "--cpus-per-trial", "0"], "`cpus_per_trial` must be above 0"),
        (["--engine", "ray", "--gpus-per-trial", "-1"], "`gpus_per_trial` must be at least 0"),
    ],
)
def test_options_of_ray_are_checked(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str], message: str
) -> None:
    study = ["--games", "maze", "--seeds", "1", "--methods", "group", "--out", str(tmp_path / "out")]
    assert main(["sweep", *study, *words]) == 2
    assert message in capsys.readouterr().err
