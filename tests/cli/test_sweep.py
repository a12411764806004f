from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from gsprune.cli import main
from gsprune.sweep.plan import Trial
from gsprune.sweep.runner import Runner, Status

TINY = (
    "--preset quick --total-timesteps 32 --num-envs 4 --num-steps 8 --num-minibatches 1 --update-epochs 1 "
    "--eval-episodes 2 --eval-num-envs 2"
)


@pytest.fixture
def ran(monkeypatch: pytest.MonkeyPatch) -> list[Trial]:
    """The trials that would have been run; each is taken to be finished."""
    trials: list[Trial] = []

    def run(self: Runner, *_: Any) -> None:
        for job in self.jobs:
            if job.status is Status.WAITING:
                trials.append(job.trial)
                job.status = Status.FINISHED

    monkeypatch.setattr(Runner, "run", run)
    return trials


def write_study(folder: Path) -> Path:
    path = folder / "study.yaml"
    path.write_text("games: bigfish\nseeds: [1, 2]\nmethods: [dense, group]\ncommon: {preset: quick, width: 1}\n")
    return path


def test_a_study_runs_from_its_file_into_a_folder_of_its_name(
    tmp_path: Path, ran: list[Trial], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["sweep", str(write_study(tmp_path))]) == 0
    assert [trial.name for trial in ran] == [
        "bigfish/dense/seed-1", "bigfish/group/seed-1", "bigfish/dense/seed-2", "bigfish/group/seed-2",
    ]  # fmt: skip
    assert ran[0].folder == Path("runs/study/bigfish/dense/seed-1")
    assert "gsprune report runs/study" in capsys.readouterr().out


def test_options_come_before_the_file(tmp_path: Path, ran: list[Trial]) -> None:
    words = ["--seeds", "5", "--methods", "narrow=--pruning none --width 2", "--options=--width 3 --sparsity 0.5"]
    assert main(["sweep", str(write_study(tmp_path)), "--out", str(tmp_path / "out"), *words]) == 0
    assert [trial.name for trial in ran] == ["bigfish/narrow/seed-5"]
    assert ran[0].arguments == ("--preset", "quick", "--width", "2", "--pruning", "none")  # which reads no sparsity


def test_a_dry_run_prints_commands(tmp_path: Path, ran: list[Trial], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["sweep", str(write_study(tmp_path)), "--out", str(tmp_path / "out"), "--dry-run"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert sum("gsprune.cli train ppo --run-dir" in line for line in lines) == 4
    assert lines[-1] == "4 trials to run, 0 finished before"
    assert ran == []


@pytest.mark.parametrize(
    ("words", "arguments"),
    [
        (["--options", "--preset quick"], ("--preset", "quick", "--pruning", "none")),
        (["--options", "--compile"], ("--compile", "--pruning", "none")),
        (["--options", "--width=3"], ("--width", "3", "--pruning", "none")),
        (["--options=--width 3", "--dry-run"], ()),
        (["--options", "", "--dry-run"], ()),
    ],
)
def test_options_may_be_a_word_of_their_own(
    tmp_path: Path, ran: list[Trial], words: list[str], arguments: tuple[str, ...]
) -> None:
    sweep = ["sweep", "--games", "maze", "--seeds", "1", "--out", str(tmp_path / "out")]
    assert main([*sweep, *words, "--methods", "dense"]) == 0
    assert [trial.arguments for trial in ran] == ([arguments] if arguments else [])


def test_options_without_a_value_do_not_swallow_the_next_option(
    tmp_path: Path, ran: list[Trial], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["sweep", "--games", "maze", "--seeds", "1", "--methods", "dense", "--options", "--dry-run"])
    assert stop.value.code == 2
    assert "Missing value for argument '--options'" in capsys.readouterr().err
    assert ran == []


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "give a YAML file, or --games, --seeds and --methods"),
        (["--games", "pong", "--seeds", "1", "--methods", "dense"], "there is no game 'pong'"),
        (["none.yaml"], "cannot read the study none.yaml"),
        (
            ["--games", "maze", "--seeds", "1", "--methods", "group", "--options=--sparsity 2"],
            "method 'group': `sparsity`",
        ),
        (["--games", "maze", "--seeds", "1", "--methods", "group", "--workers", "0"], "`workers` must be at least 1"),
        (
            ["--games", "maze", "--seeds", "1", "--methods", "group", "--gpus-per-trial", "1"],
            "`cpus_per_trial` and `gpus_per_trial` are for Ray",
        ),
    ],
)
def test_bad_input_is_refused_before_anything_runs(
    tmp_path: Path, ran: list[Trial], capsys: pytest.CaptureFixture[str], words: list[str], message: str
) -> None:
    assert main(["sweep", "--out", str(tmp_path / "out"), *words]) == 2
    assert message in capsys.readouterr().err
    assert ran == []


def test_an_unknown_option_of_a_method_is_refused_before_anything_runs(
    tmp_path: Path, ran: list[Trial], capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--games", "maze", "--seeds", "1", "--methods", "mine=--pruning group --sprasity 0.5"]
    with pytest.raises(SystemExit) as stop:
        main(["sweep", "--out", str(tmp_path / "out"), *words])
    assert stop.value.code == 2
    assert "sprasity" in capsys.readouterr().err
    assert ran == []


def test_the_exit_code_tells_of_a_failure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def run(self: Runner, *_: Any) -> None:
        self.jobs[0].status = Status.FAILED

    monkeypatch.setattr(Runner, "run", run)
    assert main(["sweep", str(write_study(tmp_path)), "--out", str(tmp_path / "out")]) == 1


def test_the_exit_code_tells_of_an_interrupt(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def run(self: Runner, *_: Any) -> None:
        self.stop()
        for job in self.jobs:
            job.status = Status.STOPPED

    monkeypatch.setattr(Runner, "run", run)
    assert main(["sweep", str(write_study(tmp_path)), "--out", str(tmp_path / "out")]) == 130


@pytest.mark.parametrize(
    ("game", "folder", "package"), [("bigfish", "bigfish", "procgen"), ("ALE/Pong-v5", "ALE-Pong-v5", "ale_py")]
)
def test_a_sweep_trains_and_reports_for_real(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], game: str, folder: str, package: str
) -> None:
    pytest.importorskip(package, reason=f"{package} is not installed")
    out = tmp_path / "out"
    atari = f"{TINY} --env-options size=42 --encoder nature --eval-episodes 0 --eval-num-envs 64"
    options = TINY if package == "procgen" else atari
    words = ["--games", game, "--seeds", "1", "--methods", "group", f"--options={options}", "--threads", "1"]
    assert main(["sweep", "--out", str(out), *words]) == 0
    before, after = json.loads((out / folder / "group" / "seed-1" / "summary.json").read_text())["params"]
    assert after < before
    capsys.readouterr()
    assert main(["sweep", "--out", str(out), *words]) == 0
    assert "1 of 1 trials are finished" in capsys.readouterr().out
    assert main(["report", str(out), "--out", str(tmp_path / "report"), "--latency"]) == 0
    assert "| group | 1 |" in (tmp_path / "report" / "report.md").read_text()
