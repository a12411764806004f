"""How pictures look: one colour, line and marker per method, legible in grey and to the colour-blind."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from gsprune.errors import MissingExtraError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["Look", "format_seconds", "format_steps", "looks", "new_figure"]

# Okabe & Ito 2008, https://jfly.uni-koeln.de/color/, without the yellow, which is too light for lines on white.
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
_MARKERS = ("o", "s", "^", "D", "v", "P", "X")
Line = Literal["-", "--", "-.", ":"]
_LINES: tuple[Line, ...] = ("-", "--", "-.", ":")


@dataclass(frozen=True)
class Look:
    """How one method is drawn in every picture."""

    colour: str
    line: Line
    marker: str


def looks(methods: Iterable[str]) -> dict[str, Look]:
    """A look per method, in their order; the same methods look the same in all pictures of a report."""
    return {
        method: Look(
            _COLOURS[i % len(_COLOURS)],
            _LINES[(i // len(_COLOURS)) % len(_LINES)],
            _MARKERS[i % len(_MARKERS)],
        )
        for i, method in enumerate(methods)
    }


def new_figure(columns: int, rows: int, width: float = 4.6, height: float = 3.2) -> tuple[Figure, Any]:
    """A figure that draws to files alone (no window system is touched) and its (rows, columns) axes.

    Args:
        columns: panels side by side.
        rows: panels above each other.
        width: of a panel, inches.
        height: of a panel, inches.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        raise MissingExtraError("matplotlib", "train") from error
    figure = Figure(figsize=(width * columns, height * rows), dpi=150, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(rows, columns, squeeze=False)
    for axis in axes.flat:
        axis.spines[["top", "right"]].set_visible(False)
        axis.grid(True, alpha=0.25, linewidth=0.6)
    return figure, axes


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
