"""Make a report of one or many runs, finished or in progress: report.md with tables and plots, and runs.csv."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro
from rich.table import Table as RichTable

from gsprune.checks import counted
from gsprune.cli.console import console, say
from gsprune.report.engine_latency import timed_again
from gsprune.report.load import load_runs
from gsprune.report.table import Table
from gsprune.report.write import write_report

__all__ = ["Args", "main"]

# The columns that fit into 80 characters; report.md has the rest.
_SHOWN_COLUMNS = ("method", "runs", "train return", "test return", "return", "params removed", "latency (ms)", "time")
_MAX_UNBROKEN_NAME = 24  # longer names of methods are broken into lines


@dataclass(frozen=True, kw_only=True)
class Args:
    """Options of ``gsprune report``."""

    runs: Annotated[tuple[Path, ...], tyro.conf.Positional]
    """run folders, or folders that contain run folders at any depth, such as a sweep's"""
    out: Path = Path("report")
    """folder of the report; files of an older report are overwritten"""
    baseline: str | None = None
    """method to compare the others with; unset: the first dense one"""
    latency: bool = False
    """time all networks again, in turns on this machine, instead of using the times of each run's end; recommended
    after a sweep, whose runs slow each other down"""


def main(args: Args) -> None:
    """Write the report and print its main tables."""
    if not args.runs:
        raise ValueError("no run folder was given; try: gsprune report runs")
    runs = load_runs(args.runs)
    if args.latency:
        with console.status(f"timing {counted(len(runs), 'network')}"):
            runs = timed_again(runs)
    report = write_report(runs, args.out, args.baseline)
    for table in report.tables:
        if table.headings[0] == "method":  # other tables may have hundreds of rows, one per run
            console.print(_for_terminal(table))
    pictures = counted(len(report.pictures), "picture")
    say(f"{pictures}, runs.csv and report.md are in {report.folder}")


def _for_terminal(table: Table) -> RichTable:
    shown = [i for i, heading in enumerate(table.headings) if heading in _SHOWN_COLUMNS]
    if "steps" not in table.headings:  # a narrow table: all columns fit
        shown = list(range(len(table.headings)))
    rich = RichTable(title=table.title)
    longest = max((len(row[0]) for row in table.rows), default=0)
    for i in shown:
        is_unbroken = table.headings[i] == "time" or (i == 0 and longest <= _MAX_UNBROKEN_NAME)
        rich.add_column(table.headings[i], justify="right" if i else "left", no_wrap=is_unbroken, overflow="fold")
    for row in table.rows:
        rich.add_row(*(row[i] for i in shown))
    return rich
