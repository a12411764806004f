"""The live display of a training: a bar in a terminal, a line now and then elsewhere."""

from __future__ import annotations

from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from gsprune.rl.metrics import Row

__all__ = ["TrainingDisplay"]

_LINES = 20  # without a terminal: this many lines over the whole training
_BAR_WIDTH = 12
_REMAINING = len("0:00:00")
_ESTIMATE_SECONDS = 3600.0  # an iteration may take minutes, and the time that is left is told from several


class TrainingDisplay:
    """Shows steps per second, return, sparsity and widths while a training runs."""

    def __init__(self, console: Console, total_steps: int, first_step: int = 0) -> None:
        """Prepare; the display is there within the context.

        Args:
            console: where to.
            total_steps: environment steps of the whole training.
            first_step: steps that a resumed training has behind it.
        """
        self._console = console
        self._total = total_steps
        self._next_line = first_step
        self._progress = Progress(
            BarColumn(bar_width=_BAR_WIDTH),
            MofNCompleteColumn(),
            TextColumn("{task.description}"),
            TimeRemainingColumn(),
            console=console,
            speed_estimate_period=_ESTIMATE_SECONDS,
            disable=not console.is_terminal,
        )
        self._task = self._progress.add_task("first iteration", total=total_steps, completed=first_step)

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
        """Take the metrics of an iteration in."""
        text = describe(row)
        shown = text if len(text) <= self._room else describe(row, with_widths=False)
        self._progress.update(self._task, completed=step, description=shown)
        if not self._console.is_terminal and step >= self._next_line:
            self._next_line = step + self._total // _LINES
            self.say(f"step {step:>{len(f'{self._total:,}')},} of {self._total:,}  {text}")

    @property
    def _room(self) -> int:
        """Characters of the line that the bar, the count and the time leave; rich would cut the count instead."""
        count = 2 * len(str(self._total)) + 1
        return self._console.width - _BAR_WIDTH - count - _REMAINING - 3

    def say(self, line: str) -> None:
        """Print a line above the bar."""
        self._progress.console.print(line, highlight=False, soft_wrap=True)


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
