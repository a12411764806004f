"""What a user sees while a training runs."""

from __future__ import annotations

import io
import re
from types import SimpleNamespace

import pytest
from rich.console import Console

from gsprune.cli import progress
from gsprune.cli.progress import TrainingDisplay, describe

ROW = {
    "charts/episodic_return": 2.345,
    "pruning/sparsity": 0.5,
    "width/a": 16,
    "width/b": 8,
    "time/sps": 123.4,
}


def test_a_row_is_told_in_one_line() -> None:
    assert describe(ROW) == "123 steps/s  return 2.35  sparsity 0.50  widths 16 8"
    assert "no episode yet" in describe({**ROW, "charts/episodic_return": None})


def test_without_a_terminal_some_lines_are_printed_and_not_one_per_iteration() -> None:
    output = io.StringIO()
    with TrainingDisplay(Console(file=output, width=200), total_steps=2000) as display:
        for step in range(1, 2001):
            display.show(step, ROW)
    lines = output.getvalue().splitlines()
    assert 15 <= len(lines) <= 25
    assert lines[0] == "step     1 of 2,000  123 steps/s  return 2.35  sparsity 0.50  widths 16 8"


def test_a_terminal_shows_a_bar() -> None:
    output = io.StringIO()
    console = Console(file=output, force_terminal=True, width=160)
    with TrainingDisplay(console, total_steps=100) as display:
        display.show(50, ROW)
        display.say("a line with [a/b] above the bar")
    assert "50/100" in output.getvalue()
    assert "a line with [a/b] above the bar" in output.getvalue()


@pytest.mark.parametrize(("width", "has_widths"), [(80, False), (160, True)])
def test_count_return_and_time_are_never_cut_and_widths_are_shown_where_they_fit(width: int, has_widths: bool) -> None:
    output = io.StringIO()
    row = {**ROW, **{f"width/{i}": 256 for i in range(10)}}
    with TrainingDisplay(Console(file=output, force_terminal=True, width=width), total_steps=25_000_000) as display:
        display.show(12_500_000, row)
    last = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", output.getvalue()).splitlines()[-1]
    assert "12500000/25000000 123 steps/s  return 2.35  sparsity 0.50" in last
    assert ("widths 16 8 256" in last) == has_widths
    assert len(last) <= width


def lines_of(output: io.StringIO) -> list[str]:
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", output.getvalue()).splitlines()


@pytest.mark.parametrize(("width", "says_more"), [(80, False), (200, True)])
def test_the_bar_moves_within_an_iteration_and_says_what_is_done(width: int, says_more: bool) -> None:
    output = io.StringIO()
    with TrainingDisplay(Console(file=output, force_terminal=True, width=width), total_steps=25_000_000) as display:
        display.show_activity(6_400, "playing")
        display._progress.refresh()
        assert "6400/25000000 first iteration: playing" in lines_of(output)[-1]
        display.show(16_384, ROW)
        display.show_activity(32_768, "learning, epoch 1 of 3")
    last = lines_of(output)[-1]
    assert "32768/25000000 123 steps/s  return 2.35  sparsity 0.50" in last
    assert ("learning, epoch 1 of 3" in last) == says_more
    assert len(last) <= width


def test_the_time_that_is_left_counts_whole_iterations_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    output = io.StringIO()
    with TrainingDisplay(Console(file=output, force_terminal=True, width=120), total_steps=1000) as display:
        monkeypatch.setattr(display._progress, "get_time", lambda: now)
        for iteration in range(3):
            for step in range(1, 101):
                now += 1 / 64  # the rollout takes a few seconds, the learning after it the rest of a minute
                display.show_activity(100 * iteration + step, "playing")
            now = 60.0 * (iteration + 1)
            display.show(100 * (iteration + 1), ROW)
    assert lines_of(output)[-1].endswith("0:07:00")


def test_without_a_terminal_a_long_first_iteration_is_told_now_and_then(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    monkeypatch.setattr(progress, "time", SimpleNamespace(monotonic=lambda: now))
    output = io.StringIO()
    with TrainingDisplay(Console(file=output, width=200), total_steps=1000) as display:
        for step in range(1, 301):
            now += 1 / 8
            display.show_activity(step, "playing")
        display.show(301, ROW)
        now += 100.0
        display.show_activity(302, "playing")
    assert output.getvalue().splitlines()[:-1] == [
        f"first iteration: playing, step {step} of 1,000" for step in (80, 160, 240)
    ]


def test_the_time_that_is_left_is_told_though_iterations_take_minutes(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    with TrainingDisplay(Console(file=io.StringIO(), force_terminal=True), total_steps=100) as display:
        monkeypatch.setattr(display._progress, "get_time", lambda: now)
        for step in (10, 20, 30):
            now += 120.0
            display.show(step, ROW)
        assert display._progress.tasks[0].time_remaining == 840.0
