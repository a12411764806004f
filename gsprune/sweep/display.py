"""Progress display of a sweep: a live table in a terminal, one line per event elsewhere."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from rich.console import Console
from rich.live import Live
from rich.table import Table

from gsprune.checks import counted
from gsprune.report.style import format_seconds, format_steps
from gsprune.sweep.folder import Progress, read_progress
from gsprune.sweep.runner import Job, Status, log_path

__all__ = ["SweepDisplay", "sweep_table"]

_POLLS_PER_REFRESH = 20  # at ten polls per second: every 2 seconds
_LINES_AROUND_TABLE = 7  # title, heading, borders and caption
_MIN_ROWS = 5
_ENDED = (Status.FINISHED, Status.FAILED, Status.STOPPED)
# Rows are shown in this order if not all of them fit.
_ORDER = (
    Status.RUNNING, Status.STOPPING, Status.FAILED, Status.STOPPED, Status.WAITING, Status.FINISHED, Status.SKIPPED,
)  # fmt: skip


class SweepDisplay:
    """A context that displays the jobs of a sweep.

    Args:
        console: the console to draw on.
        jobs: all jobs. The runner changes them while they are displayed.
    """

    def __init__(self, console: Console, jobs: Sequence[Job]) -> None:
        self._console = console
        self._jobs = jobs
        self._printed_status = {id(job): job.status for job in jobs}
        self._polls = 0
        self._live = Live(console=console, auto_refresh=False) if console.is_terminal else None

    def __enter__(self) -> SweepDisplay:
        """Show the first table."""
        if self._live is not None:
            self._live.start()
            self._draw()
        return self

    def __exit__(self, *_: object) -> None:
        """Draw the final table and leave it on the screen."""
        if self._live is not None:
            self._draw()
            self._live.stop()

    def on_poll(self) -> None:
        """Print and draw the jobs whose status changed; redraw the table every 2 seconds."""
        self._polls += 1
        must_draw = self._polls % _POLLS_PER_REFRESH == 0
        # Print ended jobs before the jobs that started in their place.
        for job in sorted(self._jobs, key=lambda job: job.status is Status.RUNNING):
            if job.status is not self._printed_status[id(job)]:
                self._printed_status[id(job)] = job.status
                must_draw = True
                if self._live is None or job.status is Status.FAILED:
                    self._print_status(job)
        if must_draw:
            self._draw()

    def _draw(self) -> None:
        if self._live is not None:
            self._live.update(sweep_table(self._jobs, self._console.height - _LINES_AROUND_TABLE), refresh=True)

    def _print_status(self, job: Job) -> None:
        text = f"{job.trial.name}: {job.status.value}"
        if job.status in _ENDED:
            text += f" after {format_seconds(job.seconds)}"
        if job.status is Status.FAILED:
            text += f": {job.message} (log: {log_path(job.trial)})"
        elif job.status is Status.RUNNING and job.resumed:
            text += " again, from its last checkpoint"
        self._console.print(text, highlight=False, soft_wrap=True, markup=False)


def sweep_table(jobs: Sequence[Job], max_rows: int) -> Table:
    """The progress table of a sweep.

    Args:
        jobs: all jobs.
        max_rows: number of rows that fit on the screen. Running and failed jobs come first; the caption counts the
            hidden ones.
    """
    rows = max(max_rows, _MIN_ROWS)
    shown = sorted(jobs, key=lambda job: _ORDER.index(job.status))[:rows] if len(jobs) > rows else list(jobs)
    counts = Counter(job.status for job in jobs)
    parts = [f"{counts[status]} {status.value}" for status in _ORDER if counts[status]]
    caption = ", ".join(parts) + (f" ({len(jobs) - len(shown)} not shown)" if len(shown) < len(jobs) else "")
    table = Table(title=f"sweep of {counted(len(jobs), 'trial')}", caption=caption)
    table.add_column("trial", overflow="fold")
    table.add_column("status")
    for heading in ("steps", "return", "sparsity", "steps/s", "time"):
        table.add_column(heading, justify="right", no_wrap=True)
    for job in shown:
        table.add_row(job.trial.name, job.status.value, *_figures(job))
    return table


def _figures(job: Job) -> tuple[str, ...]:
    progress = None if job.status is Status.WAITING and not job.resumed else read_progress(job.trial.folder)
    if progress is None:
        return ("", "", "", "", format_seconds(job.seconds) if job.seconds else "")
    episodic_return = "" if progress.episodic_return is None else f"{progress.episodic_return:.2f}"
    speed = f"{progress.steps_per_second:.0f}" if job.status is Status.RUNNING else ""
    return (_steps(progress), episodic_return, f"{progress.sparsity:.2f}", speed, format_seconds(progress.seconds))


def _steps(progress: Progress) -> str:
    return f"{format_steps(progress.step)} of {format_steps(progress.total)}"
