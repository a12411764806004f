"""The studies in docs/sweeps can be run: each method's options are right."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from gsprune.cli import main

STUDIES = sorted((Path(__file__).parent.parent.parent / "docs" / "sweeps").glob("*.yaml"))
MINATAR = ["--games", "tests.support.lights:Robots.Arm"]  # the tests do without the package MinAtar


@pytest.mark.parametrize("study", STUDIES, ids=lambda study: study.stem)
def test_a_study_has_options_that_its_trainer_takes(
    study: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.syspath_prepend(str(study.parent))  # a study's own networks
    games = MINATAR if study.stem.startswith("minatar") else []
    words = ["sweep", str(study), "--out", str(tmp_path / "out"), "--dry-run", *games]
    assert main(words) == 0
    assert ", 0 finished before" in capsys.readouterr().out


def test_the_study_on_the_page_of_evaluation_has_options_that_its_trainer_takes(tmp_path: Path) -> None:
    page = (STUDIES[0].parents[1] / "guide" / "evaluation.md").read_text()
    (study,) = re.findall(r"^```yaml\n(.*?)^```", page, flags=re.DOTALL | re.MULTILINE)
    (tmp_path / "study.yaml").write_text(study)
    assert main(["sweep", str(tmp_path / "study.yaml"), "--out", str(tmp_path / "out"), "--dry-run"]) == 0
