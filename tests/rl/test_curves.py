"""The picture of a run."""

from __future__ import annotations

import json
from pathlib import Path

from gsprune.rl.curves import plot_curves


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
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def test_the_picture_is_drawn_from_the_metrics(tmp_path: Path) -> None:
    write_metrics(tmp_path)
    path = plot_curves(tmp_path)
    assert path == tmp_path / "curves.png"
    assert path.read_bytes().startswith(b"\x89PNG")


def test_a_run_without_metrics_has_no_picture(tmp_path: Path) -> None:
    (tmp_path / "metrics.jsonl").write_text("")
    assert plot_curves(tmp_path) is None
    assert not (tmp_path / "curves.png").exists()
