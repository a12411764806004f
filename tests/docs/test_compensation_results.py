"""The page of results on compensation shows the numbers of its csv files."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
FOLDER = ROOT / "docs" / "results"


@pytest.mark.parametrize("name", ["digits", "bar", "ppo", "dqn"])
def test_the_tables_of_the_page_are_those_of_the_csv_files(name: str) -> None:
    spec = importlib.util.spec_from_file_location("compensation_results", ROOT / "scripts" / "compensation_results.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    digits, agents = (module.Results(FOLDER / f"compensation-{each}.csv") for each in ("digits", "agents"))
    table = module.tables(digits, agents)[name]
    assert table.count("\n") > 2
    assert f"<!-- table {name} -->\n\n{table}\n<!-- end -->" in (FOLDER / "compensation.md").read_text()
