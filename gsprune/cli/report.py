"""Make a report of one or many runs, finished or going on: report.md with tables and pictures, and runs.csv."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro
from rich.console import Console

from gsprune.report.latency import measured_latencies
from gsprune.report.load import load_runs
from gsprune.report.tables import Table
from gsprune.report.write import write_report

__all__ = ["Args", "main"]

_IN_TERMINAL = (
    "method", "runs", "steps", "return, train levels", "return, test levels", "parameters gone", "MACs (M)",
    "latency (ms)", "training time",
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Args:
    """Options of ``gsprune report``."""

    runs: Annotated[tuple[Path, ...], tyro.conf.Positional]
    """run folders, or folders that hold some at any depth, such as a sweep's"""
    out: Path = Path("report")
    """the report's folder; files of an older report in it are overwritten"""
    baseline: str | None = None
    """the method that the others are compared with; unset: the first"""
    latency: bool = False
    """time all networks anew, side by side on this machine, instead of taking what each run measured at its end; do so
    after a sweep, whose runs disturb each other's clocks"""


def main(args: Args) -> None:
    """Write the report and print its main tables."""
    console = Console()
    if not args.runs:
        raise ValueError("no run folder was given; try: gsprune report runs")
    runs = load_runs(args.runs)
    latencies = {}
    if args.latency:
        with console.status(f"timing {len(runs)} networks"):
            latencies = measured_latencies(runs)
    report = write_report(runs, args.out, args.baseline, latencies)
    for table in report.tables:
        console.print(_for_terminal(table))
    count = len(report.pictures)
    console.print(f"{count} pictures, runs.csv and report.md are in {report.folder}", highlight=False, soft_wrap=True)


def _for_terminal(table: Table) -> object:
    from rich.table import Table as RichTable

    shown = [i for i, heading in enumerate(table.headings) if heading in _IN_TERMINAL]
    if len(shown) < len(table.headings) // 2:  # another table than that of a game
        shown = list(range(len(table.headings)))
    rich = RichTable(title=table.title)
    for i in shown:
        rich.add_column(table.headings[i], justify="right" if i else "left", overflow="fold")
    for row in table.rows:
        rich.add_row(*(row[i] for i in shown))
    return rich
