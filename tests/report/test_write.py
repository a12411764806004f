from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from gsprune.report.load import load_runs
from gsprune.report.write import write_report

RunWriter = Callable[..., Path]
PNG = b"\x89PNG\r\n\x1a\n"


@pytest.fixture
def study(write_run: RunWriter, tmp_path: Path) -> Path:
    for game in ("bigfish", "maze"):
        for seed in (1, 2):
            write_run(f"study/{game}-dense-{seed}", env_id=game, seed=seed)
            write_run(f"study/{game}-group-{seed}", env_id=game, seed=seed, sparsity=0.8, latency_ms=0.5)
    return tmp_path / "study"


def test_a_report_is_one_page_with_all_its_pictures(study: Path, tmp_path: Path) -> None:
    report = write_report(load_runs([study]), tmp_path / "out")
    text = (tmp_path / "out" / "report.md").read_text()
    pictures = re.findall(r"!\[[^]]+\]\(([^)]+)\)", text)
    assert pictures == list(report.pictures)
    assert set(pictures) == {
        "curves_training.png", "curves_time.png", "curves_test.png", "return_latency.png", "widths.png",
        "wall_clock.png", "scores.png", "profiles.png",
    }  # fmt: skip
    assert all((tmp_path / "out" / name).read_bytes().startswith(PNG) for name in pictures)
    assert [table.title for table in report.tables] == [
        "bigfish",
        "maze",
        "Learning",
        "All games",
        "Dips after pruning",
    ]
    assert "8 runs, all finished" in text
    assert (tmp_path / "out" / "runs.csv").is_file()


def test_one_dense_run_that_is_still_going_has_a_report(write_run: RunWriter, tmp_path: Path) -> None:
    write_run("run", finished=False, rows=5)
    report = write_report(load_runs([tmp_path / "run"]), tmp_path / "out")
    assert report.pictures == ("curves_training.png", "curves_time.png", "wall_clock.png")
    assert (
        "1 run, 0 finished; the results of the others are provisional" in (tmp_path / "out" / "report.md").read_text()
    )


def test_pictures_of_an_older_report_do_not_linger(write_run: RunWriter, tmp_path: Path) -> None:
    write_run("shrinking", sparsity=0.8, rows=20)
    write_run("dense", rows=20)
    write_report(load_runs([tmp_path / "shrinking"]), tmp_path / "out")
    assert (tmp_path / "out" / "widths.png").exists()
    write_report(load_runs([tmp_path / "dense"]), tmp_path / "out")
    assert not (tmp_path / "out" / "widths.png").exists()


def test_a_run_without_a_row_has_a_report_too(write_run: RunWriter, tmp_path: Path) -> None:
    folder = write_run("run", finished=False)
    (folder / "metrics.jsonl").unlink()
    assert write_report(load_runs([folder]), tmp_path / "out").pictures == ()


def test_reports_repeat_to_the_byte(write_run: RunWriter, tmp_path: Path) -> None:
    for seed in (1, 2):
        write_run(f"study/{seed}", seed=seed, rows=20)
    for name in ("a", "b"):
        write_report(load_runs([tmp_path / "study"]), tmp_path / name)
    for file in ("report.md", "runs.csv"):
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes()


def test_methods_are_compared_with_the_dense_one_unless_told(write_run: RunWriter, tmp_path: Path) -> None:
    write_run("runs/a", sparsity=0.8, rows=5)
    write_run("runs/b", pruning="none", widths_of="runs/a", rows=5)
    write_run("runs/c", rows=5)
    runs = load_runs([tmp_path / "runs"])
    for baseline, heading in [(None, "P(better than dense)"), ("group 0.8", "P(better than group 0.8)")]:
        tables = write_report(runs, tmp_path / "out", baseline).tables
        assert heading in next(table for table in tables if table.title == "All games").headings


def test_bad_arguments_are_refused(study: Path, tmp_path: Path) -> None:
    runs = load_runs([study])
    with pytest.raises(ValueError, match=r"`baseline` must be one of the methods dense, group 0\.8; got 'best'"):
        write_report(runs, tmp_path / "out", baseline="best")
    with pytest.raises(ValueError, match="at least one run"):
        write_report([], tmp_path / "out")
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match=r"cannot be written to .* choose another --out"):
        write_report(runs, tmp_path / "file")
    assert not (tmp_path / "out").exists()


def test_runs_that_measured_their_steps_have_a_picture_and_a_table_of_them(
    write_run: RunWriter, tmp_path: Path
) -> None:
    for compensate, effect in (("none", 1.0), ("linear", 0.01)):
        for seed in (1, 2):
            write_run(f"{compensate}-{seed}", seed=seed, sparsity=0.8, effect=effect, compensate=compensate, rows=20)
    report = write_report(load_runs([tmp_path]), tmp_path / "out")
    assert "step_effects.png" in report.pictures
    assert (tmp_path / "out" / "step_effects.png").read_bytes().startswith(PNG)
    assert "Effect of pruning steps" in [table.title for table in report.tables]
