from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from gsprune.report.learning import learning_table, mean_return, steps_until
from gsprune.report.load import RunRecord, load_run, load_runs

RunWriter = Callable[..., Path]


@pytest.fixture
def write_returns(write_run: RunWriter) -> Callable[..., RunRecord]:
    """Writes a run with given training returns, one per thousand steps."""

    def write(name: str, returns: Sequence[float | None], **options: object) -> RunRecord:
        folder = write_run(name, **options)
        rows = [{"step": 1_000 * (i + 1), "charts/episodic_return": value} for i, value in enumerate(returns)]
        (folder / "metrics.jsonl").write_text("\n".join(map(json.dumps, rows)) + "\n")
        return load_run(folder)

    return write


def test_the_mean_return_is_that_of_the_curve_as_it_is_drawn(write_returns: Callable[..., RunRecord]) -> None:
    assert mean_return(write_returns("a", [-10, 9, 9])) == pytest.approx((-0.5 + 9) / 2)
    assert mean_return(write_returns("b", [None, 4, None, 8])) == pytest.approx(6)  # no episode had ended at first
    assert mean_return(write_returns("c", [None, 4])) is None


def test_steps_count_to_the_first_row_at_the_level(write_returns: Callable[..., RunRecord]) -> None:
    run = write_returns("a", [None, 1, 5, 2, 7])
    assert [steps_until(run, level) for level in (1, 4.5, 6, 8)] == [2_000, 3_000, 5_000, None]


def test_the_level_is_nine_tenths_of_the_way_that_the_baseline_went(
    write_returns: Callable[..., RunRecord], tmp_path: Path
) -> None:
    write_returns("dense", [-20, 0, 20])
    write_returns("group-1", [-20, 16, 10], sparsity=0.8)
    write_returns("group-2", [-20, 15.9, 10], sparsity=0.8, seed=2)
    table = learning_table(load_runs([tmp_path]), ["dense", "group 0.8"], "dense")
    assert table is not None
    assert table.rows == (
        ("dense", "bigfish", "1", "0.00", "16.00", "1/1", "3k"),
        ("group 0.8", "bigfish", "2", "5.47 [5.45, 5.50]", "16.00", "1/2", "2k"),
    )


def test_without_a_return_of_the_baseline_there_is_no_table(
    write_returns: Callable[..., RunRecord], tmp_path: Path
) -> None:
    write_returns("dense", [None, None])
    write_returns("group", [1, 2], sparsity=0.8)
    assert learning_table(load_runs([tmp_path]), ["dense", "group 0.8"], "dense") is None
