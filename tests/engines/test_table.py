from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

import gsprune
from gsprune import LatencyBudget
from gsprune.engines import ENGINES
from gsprune.engines.table import WidthTable, cache_folder, table_key
from gsprune.selection import dense_shapes


def test_what_was_measured_is_there_again_in_another_table_of_the_same_key(tmp_path: Path) -> None:
    table = WidthTable(tmp_path, {"engine": "eager"})
    assert table.milliseconds({"a": 3}) is None
    table.add({"a": 3}, 1.5)
    table.add_ratio("1 ms", 0.25)
    again = WidthTable(tmp_path, {"engine": "eager"})
    assert again.milliseconds({"a": 3}) == 1.5
    assert again.milliseconds({"a": 4}) is None
    assert again.ratio("1 ms") == 0.25
    assert WidthTable(tmp_path, {"engine": "compiled"}).milliseconds({"a": 3}) is None


def test_a_damaged_table_begins_anew(tmp_path: Path) -> None:
    table = WidthTable(tmp_path, {})
    table.add({"a": 3}, 1.5)
    table.path.write_text("{")
    assert WidthTable(tmp_path, {}).milliseconds({"a": 3}) is None


def test_a_table_that_cannot_be_written_names_the_way_out(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match="set GSPRUNE_CACHE"):
        WidthTable(tmp_path / "file" / "folder", {}).add({"a": 3}, 1.5)


def test_the_folder_is_the_users_choice(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    monkeypatch.delenv("GSPRUNE_CACHE", raising=False)
    assert cache_folder() == tmp_path / "xdg" / "gsprune" / "latency"
    monkeypatch.setenv("GSPRUNE_CACHE", str(tmp_path / "own"))
    assert cache_folder() == tmp_path / "own" / "latency"


def test_the_key_tells_engines_threads_batches_and_networks_apart_but_not_budgets() -> None:
    def key(budget: LatencyBudget, width: int = 8, batch: int = 4) -> dict[str, object]:
        graph = gsprune.trace(nn.Sequential(nn.Linear(3, width), nn.ReLU(), nn.Linear(width, 2)), torch.ones(batch, 3))
        return table_key(graph, dense_shapes(graph, {}), budget)

    base = key(LatencyBudget(1.0))
    assert key(LatencyBudget(2.0)) == base
    assert key(LatencyBudget(1.0), batch=6) == base  # the budget's own batch counts
    for other in (
        key(LatencyBudget(1.0, engine="compiled")),
        key(LatencyBudget(1.0, threads=2)),
        key(LatencyBudget(1.0, batch=2)),
        key(LatencyBudget(1.0), width=9),
    ):
        assert other != base


def test_times_of_an_engine_with_other_settings_are_not_taken_for_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    graph = gsprune.trace(nn.Sequential(nn.Linear(3, 8), nn.ReLU(), nn.Linear(8, 2)), torch.ones(4, 3))
    shapes = dense_shapes(graph, {})
    budgets = {engine: LatencyBudget(1.0, engine=engine) for engine in ENGINES}
    before = {engine: table_key(graph, shapes, budget) for engine, budget in budgets.items()}
    assert before["compiled"]["settings"]["inductor"] == {"freezing": True}
    thawed = {**ENGINES["compiled"].settings, "inductor": {"freezing": False}}
    monkeypatch.setattr(ENGINES["compiled"], "settings", thawed)
    for engine, budget in budgets.items():
        assert (table_key(graph, shapes, budget) == before[engine]) == (engine != "compiled")
