from __future__ import annotations

import json
from pathlib import Path

import pytest

from gsprune.cli import main


@pytest.fixture
def run(tmp_path: Path) -> Path:
    folder = tmp_path / "run"
    folder.mkdir()
    config = {"algorithm": "ppo", "env_id": "bigfish", "seed": 1, "encoder": "impoola", "width": 1, "pruning": "none"}
    (folder / "config.json").write_text(json.dumps(config))
    rows = [{"step": step, "charts/episodic_return": 1.0, "time/seconds": step / 10} for step in (10, 20)]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def test_a_report_is_written_and_its_tables_printed(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["report", str(run), "--out", str(tmp_path / "out")]) == 0
    out = capsys.readouterr().out
    assert "bigfish" in out
    assert "dense" in out
    assert (tmp_path / "out" / "report.md").is_file()


def test_square_brackets_in_a_table_are_printed(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = json.loads((run / "config.json").read_text()) | {"pruning": "[bold]"}
    (run / "config.json").write_text(json.dumps(config))
    assert main(["report", str(run), "--out", str(run / "out")]) == 0
    assert "[bold]" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "no run folder was given; try: gsprune report runs"),
        (["/nowhere"], "there is no folder '/nowhere'"),
        (["RUN", "--baseline", "best"], "`baseline` must be one of the methods dense; got 'best'"),
        (["RUN", "--latency"], "there is no checkpoint"),
    ],
)
def test_bad_input_is_one_line_and_writes_nothing(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str], message: str
) -> None:
    arguments = [str(run) if word == "RUN" else word for word in words]
    assert main(["report", *arguments, "--out", str(tmp_path / "out")]) != 0
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert not (tmp_path / "out").exists()
