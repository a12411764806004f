"""The studies in docs/sweeps can be run: each method's options are right."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from gsprune.cli import main
from gsprune.rl.trained import load_agent

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


@pytest.mark.parametrize(
    ("algorithm", "options"),
    [
        ("dropped_state:DROPPED", "--num-steps 16 --num-minibatches 2"),
        (
            "copied_target:COPIED",
            "--batch-size 8 --replay-capacity 200 --replay-storage memory --learning-starts 32 --log-interval 16"
            " --prune-interval 4 --target-interval 16",
        ),
    ],
)
def test_an_algorithm_of_a_study_trains_an_agent_that_shrinks(
    algorithm: str, options: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(STUDIES[0].parent))
    common = "--env-options asynchronous=false --encoder nature --num-envs 2 --total-timesteps 128 --torch-threads 1"
    common += " --width 1 --sparsity 0.5 --eval-episodes 0 --eval-interval-episodes 0"
    words = ["train", algorithm, "--env-id", "tests.support.lights:Robots.Arm", "--run-dir", str(tmp_path / "run")]
    assert main([*words, *common.split(), *options.split()]) == 0
    assert load_agent(tmp_path / "run").network.encoder.conv1.out_channels == 16
