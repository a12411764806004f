"""What a user sees while a training runs."""

from __future__ import annotations

import io

from rich.console import Console

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
        display.say("a line above the bar")
    assert "50/100" in output.getvalue()
    assert "a line above the bar" in output.getvalue()
