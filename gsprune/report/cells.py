"""Cells of tables: means over runs, with intervals if there are several runs."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from gsprune.report.record import RunRecord
from gsprune.report.series import bootstrap_generator
from gsprune.report.table import UNKNOWN
from gsprune.rl.evaluation.statistics import Interval, bootstrap_interval, mean

__all__ = ["bracketed", "mean_cell", "return_cell", "run_count"]


def run_count(runs: Sequence[RunRecord]) -> str:
    """The number of runs; 1/2 means that one of two is finished."""
    finished = sum(run.finished for run in runs)
    return str(finished) if finished == len(runs) else f"{finished}/{len(runs)}"


def mean_cell(
    runs: Sequence[RunRecord], figure: Callable[[RunRecord], float | None], text: Callable[[float], str]
) -> str:
    """The mean of a result over the runs that have it."""
    values = [value for value in map(figure, runs) if value is not None]
    return text(float(np.mean(values))) if values else UNKNOWN


def return_cell(values: Sequence[float | None]) -> str:
    """The mean of returns, one per run, with its 95 % bootstrap interval; None is omitted."""
    returns = [value for value in values if value is not None]
    if not returns:
        return UNKNOWN
    interval = bootstrap_interval({"game": returns}, mean, rng=bootstrap_generator())
    return bracketed(interval, digits=2, alone=len(returns) == 1)


def bracketed(interval: Interval, digits: int, alone: bool = False) -> str:
    """An estimate with its interval in brackets, or without it for a single run (`alone`)."""
    text = f"{interval.estimate:.{digits}f}"
    return text if alone else f"{text} [{interval.low:.{digits}f}, {interval.high:.{digits}f}]"
