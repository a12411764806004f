"""What a training logs, and what is left of it after a crash."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from gsprune.distributed.ranks import Ranks
from gsprune.rl.training.metrics import EpisodeTracker, MetricWriter, as_row, read_metrics


def infos(returns: list[float], mask: list[bool], first_length: int = 1) -> dict[str, Any]:
    lengths = np.arange(first_length, first_length + len(returns))
    return {"episode": {"r": np.array(returns), "l": lengths}, "_episode": np.array(mask)}


class FirstOfTwo(Ranks):
    """The first of two processes, which gathers the episodes of the second, too."""

    def __init__(self) -> None:
        super().__init__()
        self.second: Any = []

    def gather(self, value: Any) -> Any:
        return [self.second, value]


class SecondOfTwo(Ranks):
    """The second of two processes, which sends its episodes to the first."""

    def __init__(self, first: FirstOfTwo) -> None:
        super().__init__()
        self.first = first

    def gather(self, value: Any) -> None:
        self.first.second = value


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
    tracker = EpisodeTracker(Ranks())
    assert tracker.take_row()["charts/episodic_return"] is None
    tracker.add({})
    tracker.add(infos([1.0, 100.0, 4.0], [True, False, True]))
    assert tracker.take_row() == {
        "charts/episodic_return": 2.5,
        "charts/episodic_length": 2.0,
        "charts/return_since_last": 2.5,
        "charts/episodes_since_last": 2,
        "charts/episodes": 2,
    }


def test_the_return_is_that_of_the_last_hundred_episodes() -> None:
    tracker = EpisodeTracker(Ranks())
    for value in range(150):
        tracker.add(infos([float(value)], [True]))
    assert tracker.take_row()["charts/episodic_return"] == np.mean(range(50, 150))
    row = tracker.take_row()
    assert row["charts/episodes_since_last"] == 0
    assert row["charts/return_since_last"] is None
    assert row["charts/episodic_return"] == np.mean(range(50, 150))


def test_episodes_of_several_processes_count_in_the_order_in_which_one_would_see_them() -> None:
    ranks = FirstOfTwo()
    whole, first, second = EpisodeTracker(Ranks()), EpisodeTracker(ranks), EpisodeTracker(SecondOfTwo(ranks), 2)
    for step in range(3):
        mask = [step == 0, True, step == 2, True]
        returns = [10.0 * step + env for env in range(4)]
        whole.add(infos(returns, mask))
        first.add(infos(returns[:2], mask[:2]))
        second.add(infos(returns[2:], mask[2:], first_length=3))
    row = whole.take_row()
    assert row["charts/episodes"] == 8
    assert second.take_row()["charts/episodes"] == 0
    assert first.take_row() == row
    assert first.state_dict() == whole.state_dict()  # with the returns in their order
    ranks.second = []
    assert first.take_row()["charts/episodes_since_last"] == 0


def test_a_tracker_goes_on_from_its_state() -> None:
    tracker, other = EpisodeTracker(Ranks()), EpisodeTracker(Ranks())
    for value in range(120):
        tracker.add(infos([float(value)], [True]))
    tracker.take_row()
    other.load_state_dict(tracker.state_dict())
    for each in (tracker, other):
        each.add(infos([7.0], [True]))
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
