"""The dips of the return after pruning: per run, and as a table."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from gsprune.report.record import RunRecord
from gsprune.report.style import format_steps
from gsprune.report.table import UNKNOWN, Table, percent
from gsprune.rl.evaluation.dips import DipSummary, ReturnSeries, summarise_dips

__all__ = ["dip_table", "dips_of"]

_WINDOW = 0.02  # fraction of the training: several episodes, but short compared to the schedule
_HORIZON = 0.1


def dips_of(run: RunRecord) -> DipSummary | None:
    """The dips of a run's training return; None for a run without pruning steps, or with fewer than two rows."""
    events = run.pruning_steps()
    if len(run.rows) < 2 or not events:
        return None
    steps = run.column("step").astype(np.int64)
    episodes = np.nan_to_num(run.column("charts/episodes_since_last"))
    series = ReturnSeries(steps, run.column("charts/return_since_last"), episodes)
    window, horizon = (max(1, int(part * steps[-1])) for part in (_WINDOW, _HORIZON))
    return summarise_dips(series, events, window, horizon)


def dip_table(runs: Sequence[RunRecord], methods: Sequence[str]) -> Table | None:
    """The depth of the dips after pruning and the time of recovery, one row per run; see `gsprune.report.tables`."""
    rows = []
    for run in sorted(runs, key=lambda run: (methods.index(run.method), run.game, run.seed)):
        summary = dips_of(run)
        if summary is not None and summary.dips:
            rows.append(
                (
                    f"{run.method}: {run.game}, seed {run.seed}",
                    str(len(run.pruning_steps())),
                    str(len(summary.dips)),
                    _signed(summary.depth),
                    _signed(summary.control_depth),
                    percent(summary.recovered),
                    UNKNOWN if math.isnan(summary.recovery) else format_steps(summary.recovery),
                )
            )
    if not rows:
        return None
    headings = ("run", "pruning steps", "bursts", "dip", "dip without pruning", "recovered", "recovery (steps)")
    note = (
        "Dip: mean return before a burst of pruning steps minus the lowest windowed mean after it; negative if the "
        "return only rose. A schedule with a step per iteration is one burst. "
        f"Windows are {percent(_WINDOW)} of the training so far, the horizon is {percent(_HORIZON)}. The dip "
        "without pruning is measured in the same way at moments far from pruning steps; it shows the effect of noise."
    )
    return Table("Dips after pruning", headings, tuple(rows), note)


def _signed(value: float) -> str:
    return UNKNOWN if math.isnan(value) else f"{value:+.2f}"
