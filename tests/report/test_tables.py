from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from gsprune.report.dips import dip_table
from gsprune.report.load import load_runs
from gsprune.report.table import Table
from gsprune.report.tables import aggregate_table, effect_table, game_table, noise_table, write_runs_csv

RunWriter = Callable[..., Path]


def cells(table: Table | None, row: int) -> dict[str, str]:
    assert table is not None
    return dict(zip(table.headings, table.rows[row], strict=True))


@pytest.fixture
def study(write_run: RunWriter, tmp_path: Path) -> Path:
    for seed, (dense, group) in enumerate([(10.0, 12.0), (14.0, 13.0)], start=1):
        write_run(f"dense-{seed}", seed=seed, test_return=dense)
        write_run(f"group-{seed}", seed=seed, test_return=group, sparsity=0.8, latency_ms=0.5, seconds_per_row=3.0)
    return tmp_path


def test_a_row_holds_the_means_over_runs_with_intervals(study: Path) -> None:
    runs = load_runs([study])
    row = cells(game_table(runs, "bigfish", ["dense", "group 0.8"]), 1)
    assert row["method"] == "group 0.8"
    assert row["runs"] == "2"
    assert row["test return"] == "12.50 [12.00, 13.00]"
    assert row["train return"] == "20.00 [20.00, 20.00]"
    assert row["sparsity"] == "80 %"
    assert row["latency (ms)"] == "0.50"
    assert row["time"] == "5 min 00 s"
    assert row["steps"] == "100k"


def test_one_run_has_no_interval_and_unknown_figures_are_dashes(write_run: RunWriter, tmp_path: Path) -> None:
    write_run("a", finished=False, rows=5)
    runs = load_runs([tmp_path])
    row = cells(game_table(runs, "bigfish", ["dense"]), 0)
    assert row["test return"] == "-"
    assert row["latency (ms)"] == "-"
    assert row["runs"] == "0/1"
    write_run("b", seed=2, test_return=3.0)
    runs = load_runs([tmp_path / "b"])
    assert cells(game_table(runs, "bigfish", ["dense"]), 0)["test return"] == "3.00"


def test_methods_without_a_run_of_the_game_have_no_row(study: Path) -> None:
    runs = load_runs([study])
    assert len(game_table(runs, "bigfish", ["dense", "group 0.8", "redo"]).rows) == 2
    assert game_table(runs, "maze", ["dense"]).rows == ()


def test_the_aggregate_is_normalised_and_compares_with_the_baseline(study: Path) -> None:
    runs = load_runs([study])
    table = aggregate_table(runs, ["dense", "group 0.8"], baseline="dense")
    dense, group = cells(table, 0), cells(table, 1)
    assert dense["mean, normalised"].startswith(f"{(12 - 1) / 39:.3f} [")
    assert dense["P(better than dense)"] == "-"
    assert group["P(better than dense)"].startswith("0.50 [")  # 12 > 10, 13 > 10, 12 < 14, 13 < 14
    assert (group["games"], group["runs"]) == ("1", "2")


def test_one_run_against_one_has_no_interval(study: Path) -> None:
    runs = load_runs([study / "dense-1", study / "group-1"])
    row = cells(aggregate_table(runs, ["dense", "group 0.8"], baseline="dense"), 1)
    assert row["P(better than dense)"] == "1.00"


def test_two_seeds_are_no_certainty(write_run: RunWriter, tmp_path: Path) -> None:
    for seed in (1, 2):
        write_run(f"dense-{seed}", seed=seed, test_return=10.0 + seed)
        write_run(f"group-{seed}", seed=seed, test_return=5.0 + seed, sparsity=0.8)
    runs = load_runs([tmp_path])
    row = cells(aggregate_table(runs, ["dense", "group 0.8"], baseline="dense"), 1)
    assert row["P(better than dense)"] == "0.00 [0.00, 0.84]"


def test_without_two_test_returns_there_is_no_aggregate(write_run: RunWriter, tmp_path: Path) -> None:
    write_run("a", finished=False, rows=5)
    write_run("b", seed=2)
    runs = load_runs([tmp_path])
    assert aggregate_table(runs, ["dense"], baseline="dense") is None


def test_games_that_the_baseline_lacks_are_not_compared(study: Path, write_run: RunWriter) -> None:
    write_run("other", env_id="maze", sparsity=0.8, test_return=9.0)
    runs = load_runs([study])
    row = cells(aggregate_table(runs, ["dense", "group 0.8"], baseline="dense"), 1)
    assert row["games"] == "2"
    assert row["P(better than dense)"].startswith("0.50 [")


def test_runs_with_the_noise_track_have_a_row(study: Path) -> None:
    runs = load_runs([study])
    assert noise_table(runs, ["dense", "group 0.8"]) is None
    names = ("test", "test, noise 5", "test, noise 15", "test, noise 30")
    evaluation = {"step": 100_000, "num_envs": 1, "episodes_per_env": 1}
    tracks = {name: {"mean": mean} for name, mean in zip(names, (9.0, 8.0, 4.0, 1.0), strict=True)}
    (study / "group-1" / "eval.json").write_text(json.dumps({**evaluation, "tracks": tracks}))
    table = noise_table(load_runs([study]), ["dense", "group 0.8"])
    assert table is not None
    assert table.headings[3:] == ("no noise", "sigma 5", "sigma 15", "sigma 30")
    assert table.rows == (("group 0.8", "bigfish", "1", "9.00", "8.00", "4.00", "1.00"),)


def test_only_runs_that_pruned_have_a_dip(study: Path) -> None:
    runs = load_runs([study])
    table = dip_table(runs, ["dense", "group 0.8"])
    assert table is not None
    assert [row[0] for row in table.rows] == ["group 0.8: bigfish, seed 1", "group 0.8: bigfish, seed 2"]
    assert cells(table, 0)["pruning steps"] == "60"
    assert cells(table, 0)["bursts"] == "1"
    assert dip_table([run for run in runs if run.method == "dense"], ["dense"]) is None


def test_markdown_escapes_what_would_break_a_row() -> None:
    text = Table("t", ("a", "b"), (("x|y", "1"),), "a note").markdown()
    assert text.splitlines() == ["## t", "", "| a | b |", "|---|---:|", "| x\\|y | 1 |", "", "a note"]


def test_the_csv_has_plain_numbers_and_gaps(study: Path, tmp_path: Path) -> None:
    runs = load_runs([study])
    write_runs_csv(runs, tmp_path / "runs.csv")
    with (tmp_path / "runs.csv").open() as file:
        lines = list(csv.DictReader(file))
    assert len(lines) == 4
    assert lines[0]["method"] == "dense"
    assert float(lines[0]["test_return"]) == 10.0
    assert lines[0]["finished"] == "True"
    assert lines[0]["dip_depth"] == ""
    assert float(lines[2]["dip_depth"]) < 0


def test_the_effect_of_a_run_is_that_of_its_largest_step(write_run: RunWriter, tmp_path: Path) -> None:
    for seed, effect in ((1, 1.0), (2, 2.0)):
        write_run(f"group-{seed}", seed=seed, sparsity=0.8, rows=10, effect=effect)
    write_run("dense")
    runs = load_runs([tmp_path])
    table = effect_table(runs, ["dense", "group 0.8"])
    assert table is not None
    assert len(table.rows) == 1
    row = cells(table, 0)
    # The first of six steps of the cubic schedule adds 0.8 * (1 - (5/6)^3) = 0.337.
    assert (row["method"], row["runs"], row["KL"], row["value change / std"]) == ("group 0.8", "2", "0.506", "5.06")
    assert row["greedy actions changed"] == "-"
    assert effect_table([run for run in runs if run.method == "dense"], ["dense"]) is None
