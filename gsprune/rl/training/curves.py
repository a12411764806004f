"""The plot of one run: the return and the widths of its network over environment steps."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gsprune.errors import MissingExtraError
from gsprune.rl.training.metrics import read_metrics

__all__ = ["plot_curves"]


def plot_curves(folder: Path, dense_widths: Mapping[str, int]) -> Path | None:
    """Draw ``curves.png`` of a run folder.

    Args:
        folder: a run folder with metrics.
        dense_widths: group -> width of the dense network, which the metrics lack if the first row follows a pruning
            step.

    Returns:
        the path of the file, or None if there are no metrics yet.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        raise MissingExtraError("matplotlib", "train") from error
    rows = read_metrics(folder)
    if not rows:
        return None
    figure = Figure(figsize=(8, 6), layout="constrained")
    FigureCanvasAgg(figure)  # needs no display and does not change pyplot's global state
    above, below = figure.subplots(2, 1, sharex=True)
    steps = [row["step"] for row in rows]
    _plot_returns(above, steps, rows)
    _plot_widths(below, steps, rows, dense_widths)
    path = folder / "curves.png"
    figure.savefig(path, dpi=150)
    return path


def _plot_returns(axes: Any, steps: list[int], rows: list[dict[str, Any]]) -> None:
    axes.plot(steps, _column(rows, "charts/episodic_return"), label="training, last 100 episodes")
    has_levels = any("eval/train_return" in row for row in rows)
    for name, marker in (("train", "o"), ("test", "s")):
        points = [(row["step"], row[f"eval/{name}_return"]) for row in rows if f"eval/{name}_return" in row]
        if points:
            label = f"evaluation, {name} levels" if has_levels else "evaluation"
            axes.plot(*zip(*points, strict=True), marker=marker, label=label)
    axes.set_ylabel("return")
    axes.legend(frameon=False)
    axes.grid(alpha=0.3)


def _plot_widths(axes: Any, steps: list[int], rows: list[dict[str, Any]], dense_widths: Mapping[str, int]) -> None:
    """Widths as fractions of the dense network's; groups of equal widths share a line."""
    groups_of: dict[tuple[float, ...], list[str]] = {}
    for name, first in dense_widths.items():
        groups_of.setdefault((first, *_column(rows, f"width/{name}")), []).append(name)
    for (dense, *widths), names in groups_of.items():
        label = f"{names[0]} ({dense:g})" if len(names) == 1 else f"{len(names)} groups ({dense:g} each)"
        axes.step(steps, [width / dense for width in widths], where="post", label=label)
    axes.set_ylim(0, 1.05)
    axes.set_ylabel("width / dense width")
    axes.set_xlabel("environment steps")
    axes.legend(frameon=False)
    axes.grid(alpha=0.3)


def _column(rows: list[dict[str, Any]], key: str) -> list[float]:
    return [float("nan") if row[key] is None else row[key] for row in rows]
