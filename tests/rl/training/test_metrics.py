"""What a training logs, and what is left of it after a crash."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from gsprune.rl.training.metrics import Ended, EpisodeLog, EpisodeTracker, MetricWriter, as_row, read_metrics


def infos(returns: list[float], mask: list[bool]) -> dict[str, Any]:
    lengths = np.arange(1, len(returns) + 1)
    return {"episode": {"r": np.array(returns), "l": lengths}, "_episode": np.array(mask)}


def ends(returns: list[float], mask: list[bool]) -> list[Ended]:
    log = EpisodeLog()
    log.add(infos(returns, mask))
    return log.take()


def test_metrics_of_an_algorithm_become_numbers_and_others_are_named() -> None:
    metrics = {"a": torch.tensor(1.5), "b": np.float32(2), "c": np.array([3]), "d": None, "e": 4}
    row = as_row(metrics, "A2C")
    assert row == {"a": 1.5, "b": 2.0, "c": 3, "d": None, "e": 4}
    assert json.loads(json.dumps(row)) == row
    with pytest.raises(TypeError, match=r"A2C._iterate\(\) must return numbers, got array\(.*\) for 'losses/a'"):
        as_row({"losses/a": np.zeros(3)}, "A2C")
    with pytest.raises(TypeError, match=r"A2C._iterate\(\) must return a mapping of metrics, got NoneType"):
        as_row(None, "A2C")


def test_only_episodes_that_ended_count() -> None:
    tracker = EpisodeTracker()
    assert tracker.mean_return is None
    tracker.add([])
    tracker.add(ends([1.0, 100.0, 4.0], [True, False, True]))
    assert tracker.take_row() == {
        "charts/episodic_return": 2.5,
        "charts/episodic_length": 2.0,
        "charts/return_since_last": 2.5,
        "charts/episodes_since_last": 2,
        "charts/episodes": 2,
    }


def test_the_return_is_that_of_the_last_hundred_episodes() -> None:
    tracker = EpisodeTracker()
    for value in range(150):
        tracker.add(ends([float(value)], [True]))
    assert tracker.mean_return == np.mean(range(50, 150))
    tracker.take_row()
    row = tracker.take_row()
    assert row["charts/episodes_since_last"] == 0
    assert row["charts/return_since_last"] is None
    assert row["charts/episodic_return"] == np.mean(range(50, 150))


def test_episodes_of_several_processes_count_in_the_order_in_which_one_would_see_them() -> None:
    whole, first, second = EpisodeLog(), EpisodeLog(), EpisodeLog(first_env=2)
    for step in range(3):
        mask = [step == 0, True, step == 2, True]
        returns = [10.0 * step + env for env in range(4)]
        whole.add(infos(returns, mask))
        first.add(infos(returns[:2], mask[:2]))
        second.add(infos(returns[2:], mask[2:]))
    ended = whole.take()
    assert len(ended) == 8
    parts = [*second.take(), *first.take()]
    assert [episode.episodic_return for episode in sorted(parts)] == [episode.episodic_return for episode in ended]
    assert first.take() == []


def test_a_tracker_goes_on_from_its_state() -> None:
    tracker, other = EpisodeTracker(), EpisodeTracker()
    for value in range(120):
        tracker.add(ends([float(value)], [True]))
    tracker.take_row()
    other.load_state_dict(tracker.state_dict())
    for each in (tracker, other):
        each.add(ends([7.0], [True]))
    assert tracker.take_row() == other.take_row()


def test_rows_are_read_back_and_what_is_not_finite_is_null(tmp_path: Path) -> None:
    writer = MetricWriter(tmp_path)
    writer.write(8, {"a": 1.5, "b": float("nan"), "c": None, "d": 3})
    writer.close()
    assert read_metrics(tmp_path) == [{"step": 8, "a": 1.5, "b": None, "c": None, "d": 3}]


def test_rows_after_the_checkpoint_are_cut_off_on_resume(tmp_path: Path) -> None:
    writer = MetricWriter(tmp_path)
    writer.write(1, {"a": 1})
    known = writer.sync()
    writer.write(2, {"a": 2})
    writer.close()
    resumed = MetricWriter(tmp_path, keep_bytes=known, next_step=2)
    assert resumed.sync() == known
    resumed.write(2, {"a": 20})
    resumed.close()
    assert [row["a"] for row in read_metrics(tmp_path)] == [1, 20]


def test_an_unfinished_line_is_not_read(tmp_path: Path) -> None:
    (tmp_path / "metrics.jsonl").write_text(json.dumps({"step": 1}) + '\n{"step": 2, "lo')
    assert read_metrics(tmp_path) == [{"step": 1}]


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_tensorboard_has_the_same_scalars(tmp_path: Path) -> None:
    writer = MetricWriter(tmp_path)
    for step in (10, 20):
        writer.write(step, {"charts/a": step / 10, "b": None})
    writer.close()
    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    assert [(event.step, event.value) for event in events.Scalars("charts/a")] == [(10, 1.0), (20, 2.0)]
    assert "b" not in events.Tags()["scalars"]
