"""The live display of a training: a progress bar in a terminal, otherwise a line from time to time."""

from __future__ import annotations

import time
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, Task, TextColumn, TimeRemainingColumn
from rich.text import Text

from gsprune.cli.console import say
from gsprune.rl.training.metrics import Row

__all__ = ["TrainingDisplay"]

_LINES = 20  # without a terminal: this many lines over the whole training
_BAR_WIDTH = 12
_REMAINING = len("0:00:00")
_ESTIMATE_SECONDS = 3600.0  # the remaining time is estimated from several iterations, which may take minutes each
_SILENCE_SECONDS = 10.0  # without a terminal: between two lines of the first iteration


class TrainingDisplay:
    """Shows steps per second, return, sparsity and widths while a training runs."""

    def __init__(self, console: Console, total_steps: int, first_step: int = 0) -> None:
        """Prepare the display, which is visible within the context; `first_step` is where a resumed training begins."""
        self._console = console
        self._total = total_steps
        self._next_line = first_step
        self._row: Row | None = None
        self._printed = time.monotonic()
        self._progress = Progress(
            BarColumn(bar_width=_BAR_WIDTH),
            MofNCompleteColumn(),
            TextColumn("{task.description}"),
            _TimeLeft(),
            console=console,
            speed_estimate_period=_ESTIMATE_SECONDS,
            disable=not console.is_terminal,
        )
        self._pace = self._progress.add_task("", total=total_steps, completed=first_step, visible=False)
        pace = self._progress.tasks[0]
        self._task = self._progress.add_task("first iteration", total=total_steps, completed=first_step, pace=pace)

    def __enter__(self) -> TrainingDisplay:
        """Start the bar."""
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Leave the bar as it is."""
        self._progress.stop()

    def show(self, step: int, row: Row) -> None:
        """Show the metrics of an iteration."""
        text = describe(row)
        self._row = row
        self._progress.update(self._pace, completed=step)
        self._progress.update(self._task, completed=step, description=self._description())
        if not self._console.is_terminal and step >= self._next_line:
            self._next_line = step + self._total // _LINES
            self.say(f"step {step:>{len(f'{self._total:,}')},} of {self._total:,}  {text}")

    def show_activity(self, step: int, activity: str) -> None:
        """Move the bar within an iteration, and show what the trainer is doing."""
        self._progress.update(self._task, completed=step, description=self._description(activity))
        if self._row is None and not self._console.is_terminal and time.monotonic() - self._printed >= _SILENCE_SECONDS:
            self._printed = time.monotonic()
            self.say(f"first iteration: {activity}, step {step:,} of {self._total:,}")

    def _description(self, activity: str = "") -> str:
        """The newest metrics and the activity, as far as they fit."""
        if self._row is None:
            return f"first iteration: {activity}"
        text = describe(self._row)
        if len(text) > self._room:
            text = describe(self._row, with_widths=False)
        return f"{text}  {activity}" if activity and len(text) + len(activity) + 2 <= self._room else text

    @property
    def _room(self) -> int:
        """Characters that remain beside the bar, the count and the time. With a longer text rich cuts the count."""
        count = 2 * len(str(self._total)) + 1
        return self._console.width - _BAR_WIDTH - count - _REMAINING - 3

    def say(self, line: str) -> None:
        """Print a line above the bar."""
        say(line, self._progress.console)


class _TimeLeft(TimeRemainingColumn):
    """Estimates the remaining time from whole iterations, because a rollout is faster than the learning after it."""

    def render(self, task: Task) -> Text:
        """The remaining time of the task that counts whole iterations."""
        return super().render(task.fields.get("pace", task))


def describe(row: Row, with_widths: bool = True) -> str:
    """The metrics of an iteration in one line."""
    episodic_return = row.get("charts/episodic_return")
    widths = [str(value) for key, value in row.items() if key.startswith("width/")]
    parts = [
        f"{row['time/sps']:.0f} steps/s",
        "no episode yet" if episodic_return is None else f"return {episodic_return:.2f}",
        f"sparsity {row.get('pruning/sparsity') or 0:.2f}",
    ]
    if with_widths:
        parts.append(f"widths {' '.join(widths)}")
    return "  ".join(parts)
