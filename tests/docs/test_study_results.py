"""The pages of the studies show the numbers of the runs beside them."""

from __future__ import annotations

from pathlib import Path

import pytest

from gsprune.report.load import load_runs

FOLDER = Path(__file__).parent.parent.parent / "docs" / "results"


def test_the_tables_of_ten_events_are_those_that_the_report_makes_of_the_runs(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    from gsprune.report.write import write_report

    page = (FOLDER / "minatar.md").read_text()
    tables = {table.title: table for table in write_report(load_runs([FOLDER / "minatar-ten"]), tmp_path).tables}
    for title in ("Effect of pruning steps", "Dips after pruning"):
        assert tables[title].markdown().split("\n\n")[1] in page, title


@pytest.mark.parametrize(("study", "game"), [("minatar", "minatar_games:space_invaders"), ("pong", "ALE/Pong-v5")])
def test_the_tables_of_the_page_are_those_that_the_report_makes_of_the_runs(
    tmp_path: Path, study: str, game: str
) -> None:
    pytest.importorskip("matplotlib")
    from gsprune.report.write import write_report

    report = write_report(load_runs([FOLDER / study]), tmp_path)
    page = (FOLDER / f"{study}.md").read_text()
    titles = {table.title for table in report.tables}
    assert {game, "Learning", "Effect of pruning steps"} <= titles
    for table in report.tables:
        _, body, *_ = table.markdown().split("\n\n")
        assert body in page, table.title


@pytest.mark.parametrize("study", ["minatar-ablations", "minatar-dqn", "minatar-three", "minatar-wide"])
def test_a_table_of_single_runs_has_their_returns(study: str) -> None:
    rows = [row.split(" | ") for row in (FOLDER / "minatar.md").read_text().splitlines() if row.startswith("| ")]
    runs = load_runs([FOLDER / study])
    assert len(runs) >= 3
    for run in runs:
        assert any(row[0] == f"| {run.method}" and f"{run.test_return:.1f}" in row for row in rows), run.method
