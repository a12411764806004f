"""The plot of `gsprune latency`: one panel per batch size, one bar per network in every engine."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from gsprune.checks import counted
from gsprune.report.engine_latency import EngineLatency
from gsprune.report.style import new_figure, plot_styles

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["engine_latencies"]

_LETTERS_PER_INCH = 16  # in the legend's font
_LEGEND_KEY = 8  # width of a legend's key and gaps, in letters


def engine_latencies(rows: Sequence[EngineLatency]) -> Figure:
    """Medians of undisturbed calls as bars with labels."""
    batches = list(dict.fromkeys(row.latency.batch for row in rows))
    networks = list(dict.fromkeys(row.network for row in rows))
    settings = list(dict.fromkeys((row.engine, row.latency.threads) for row in rows))
    styles = plot_styles(networks)
    panel = 1.6 + 0.38 * len(settings) * len(networks)
    figure, axes = new_figure(len(batches), 1, width=max(4.6, panel), height=3.8)
    times = {
        (row.network, row.engine, row.latency.threads, row.latency.batch): 1e3 * row.latency.undisturbed for row in rows
    }
    width = 0.8 / len(networks)
    for batch, axis in zip(batches, axes[0], strict=True):
        for index, network in enumerate(networks):
            heights = [times[network, engine, threads, batch] for engine, threads in settings]
            positions = np.arange(len(settings)) + (index - (len(networks) - 1) / 2) * width
            bars = axis.bar(positions, heights, width, color=styles[network].colour, label=network)
            axis.bar_label(bars, labels=[_short(height) for height in heights], fontsize=7, padding=2)
        axis.set_xticks(np.arange(len(settings)))
        labels = [f"{engine}\n{counted(threads, 'thread')}" for engine, threads in settings]
        axis.set_xticklabels(labels, fontsize=7)
        axis.set_title(f"batch {batch}")
        axis.set_ylabel("milliseconds per forward")
        axis.margins(y=0.1)
    handles, names = axes[0][0].get_legend_handles_labels()
    columns = max(1, min(3, int(figure.get_figwidth() * _LETTERS_PER_INCH / (max(map(len, names)) + _LEGEND_KEY))))
    figure.legend(handles, names, loc="outside lower center", ncols=columns, frameon=False, fontsize=8)
    return figure


def _short(milliseconds: float) -> str:
    """A number with two digits, which fits above a bar; whole milliseconds from 100 on."""
    return f"{milliseconds:,.0f}" if milliseconds >= 100 else f"{milliseconds:.2g}"
