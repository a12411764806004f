"""Prints the summary of a run."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console
from rich.table import Table

from gsprune.cli.console import say
from gsprune.rl.training.summary import RunSummary

__all__ = ["print_summary"]


def print_summary(summary: RunSummary, folder: Path, console: Console) -> None:
    """Print the results of a run as tables, and the names of its files."""
    network = Table("network", title=f"{summary.env_id}, pruning: {summary.pruning}")
    for heading in ("start", "end"):
        network.add_column(heading, justify="right")
    for network_row in summary.network_rows():
        network.add_row(*network_row)
    results = Table("run")
    results.add_column("", justify="right")
    for result_row in summary.result_rows():
        results.add_row(*result_row)
    console.print(network)
    console.print(results)
    say(console, f"summary.md, curves.png, metrics.jsonl and checkpoints are in {folder}")
