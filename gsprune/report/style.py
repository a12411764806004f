"""The style of plots: one colour, line and marker per method, legible in grey and for colour-blind people."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from gsprune.errors import needs

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from gsprune.report.series import Band

__all__ = [
    "PlotStyle",
    "draw_band",
    "format_seconds",
    "format_steps",
    "method_legend",
    "name_rows",
    "new_figure",
    "plot_styles",
    "rows_inches",
    "text_inches",
    "wrapped",
]

# Okabe & Ito 2008, https://jfly.uni-koeln.de/color/, without yellow, which is too light for lines on white.
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
_MARKERS = ("o", "s", "^", "D", "v", "P", "X")
Line = Literal["-", "--", "-.", ":"]
_LINES: tuple[Line, ...] = ("-", "--", "-.", ":")
# With more intervals the numbers on an axis would touch: 0.00225 takes half an inch, and a panel has three.
_MAX_INTERVALS = 4
_TICK_POINTS = 8
_LETTER_INCHES = 0.075  # mean width of a letter in ticks and legends
_LINE_INCHES = 0.14
_ROW_INCHES = 0.42
_LONGEST_LINE = 44


@dataclass(frozen=True)
class PlotStyle:
    """The colour, line and marker of one method in all plots."""

    colour: str
    line: Line
    marker: str


def plot_styles(methods: Iterable[str]) -> dict[str, PlotStyle]:
    """The style of every method; it is the same in all plots of a report."""
    return {
        method: PlotStyle(
            _COLOURS[i % len(_COLOURS)],
            _LINES[(i // len(_COLOURS)) % len(_LINES)],
            _MARKERS[i % len(_MARKERS)],
        )
        for i, method in enumerate(methods)
    }


def new_figure(columns: int, rows: int, width: float = 4.6, height: float = 3.2) -> tuple[Figure, Any]:
    """A figure for writing to files, without a window, and its (rows, columns) axes.

    Width and height are those of a panel, in inches.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    with needs("matplotlib", "train"):
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    figure = Figure(figsize=(width * columns, height * rows), dpi=150, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(rows, columns, squeeze=False)
    for axis in axes.flat:
        axis.spines[["top", "right"]].set_visible(False)
        axis.grid(True, alpha=0.25, linewidth=0.6)
        axis.locator_params(axis="x", nbins=_MAX_INTERVALS)
        axis.tick_params(labelsize=_TICK_POINTS)
    return figure, axes


def wrapped(name: str) -> str:
    """The name of a method, wrapped into lines, because it may list many options."""
    return textwrap.fill(name, _LONGEST_LINE)


def text_inches(names: Sequence[str]) -> float:
    """The width of the longest line of the wrapped names."""
    return _LETTER_INCHES * max(len(line) for name in names for line in wrapped(name).splitlines())


def rows_inches(names: Sequence[str]) -> float:
    """The height of a panel with a row per name."""
    lines = max(len(wrapped(name).splitlines()) for name in names)
    return 0.9 + max(_ROW_INCHES, _LINE_INCHES * (lines + 1)) * len(names)


def name_rows(axis: Axes, names: Sequence[str]) -> None:
    """Write the names along the left side of a panel, the first at the top."""
    axis.set_yticks(range(len(names)), [wrapped(name) for name in names])
    axis.set_ylim(len(names) - 0.5, -0.5)


def draw_band(axis: Axes, band: Band, style: PlotStyle, unit: float = 1.0, label: str | None = None) -> None:
    """Draw a mean over runs, with its interval if there are several runs; `band.x` is divided by `unit`."""
    x = band.x / unit
    axis.plot(
        x,
        band.mean,
        style.line,
        color=style.colour,
        marker=style.marker,
        markevery=max(1, x.size // 10),
        markersize=4,
        linewidth=1.5,
        label=label,
    )
    if band.runs > 1:
        axis.fill_between(x, band.low, band.high, color=style.colour, alpha=0.18, linewidth=0)


def method_legend(figure: Figure, methods: Sequence[str], styles: Mapping[str, PlotStyle], lines: bool = True) -> None:
    """Add one legend for all panels below them, where it hides nothing."""
    from matplotlib.lines import Line2D

    handles = [
        Line2D(
            [],
            [],
            color=styles[m].colour,
            linestyle=styles[m].line if lines else "none",
            marker=styles[m].marker,
            markersize=5,
        )
        for m in methods
    ]
    entry_inches = 0.6 + text_inches(methods)  # with handle and gap
    columns = max(1, min(len(methods), int(figure.get_figwidth() / entry_inches)))
    figure.legend(
        handles, [wrapped(m) for m in methods], loc="outside lower center", ncols=columns, frameon=False, fontsize=8
    )


def format_steps(value: float, _position: int | None = None) -> str:
    """Environment steps for people: 200k, 1.5M."""
    for size, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= size:
            return f"{value / size:.3g}{unit}"
    return f"{value:.3g}"


def format_seconds(seconds: float) -> str:
    """A duration for people: 42 s, 3 min 20 s, 2 h 05 min."""
    whole = round(seconds)
    if whole < 60:
        return f"{seconds:.3g} s" if seconds < 10 else f"{whole} s"
    if whole < 3_600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3_600} h {whole % 3_600 // 60:02d} min"
