"""The picture of a run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from matplotlib.axes import Axes

from gsprune.report.plot_run import plot_run

FIRST = {"a": 16, "b": 16, "c": 256}


def write_run(folder: Path, rows: list[dict[str, Any]]) -> None:
    (folder / "config.json").write_text(json.dumps({"algorithm": "ppo", "env_id": "bigfish", "seed": 1}))
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def write_metrics(folder: Path) -> None:
    rows = [
        {"step": 10, "charts/episodic_return": None, "width/a": 16, "width/b": 16, "width/c": 256},
        {
            "step": 20,
            "charts/episodic_return": 1.5,
            "width/a": 8,
            "width/b": 8,
            "width/c": 100,
            "eval/train_return": 1.0,
        },
        {"step": 30, "charts/episodic_return": 2.5, "width/a": 8, "width/b": 8, "width/c": 60},
    ]
    write_run(folder, rows)


def test_the_picture_is_drawn_from_the_metrics(tmp_path: Path) -> None:
    write_metrics(tmp_path)
    path = plot_run(tmp_path, FIRST)
    assert path == tmp_path / "curves.png"
    assert path.read_bytes().startswith(b"\x89PNG")


def test_a_run_without_metrics_has_no_picture(tmp_path: Path) -> None:
    write_run(tmp_path, [])
    assert plot_run(tmp_path, FIRST) is None
    assert not (tmp_path / "curves.png").exists()


def test_widths_are_drawn_as_shares_of_the_dense_networks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # The first row may come after the first pruning step.
    write_metrics(tmp_path)
    drawn, draw = {}, Axes.step

    def watched(axes: Axes, x: Any, y: Any, **options: Any) -> None:
        drawn[options["label"]] = (x.tolist(), y.tolist())
        draw(axes, x, y, **options)

    monkeypatch.setattr(Axes, "step", watched)
    plot_run(tmp_path, {"a": 32, "b": 32, "c": 512})
    assert drawn == {
        "2 groups (32 each)": ([10, 20, 30], [0.5, 0.25, 0.25]),
        "c (512)": ([10, 20, 30], [0.5, 100 / 512, 60 / 512]),
    }
