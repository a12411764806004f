"""The plot of one run: the return and the widths of its network over environment steps."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from gsprune.report.load import load_run
from gsprune.report.record import equal_widths
from gsprune.report.style import format_steps, new_figure

__all__ = ["plot_run"]


def plot_run(folder: Path, dense_widths: Mapping[str, int]) -> Path | None:
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
    run = load_run(folder)
    if not run.rows:
        return None
    figure, ((above,), (below,)) = new_figure(1, 2, width=8, height=3)
    steps = run.column("step")
    above.plot(steps, run.column("charts/episodic_return"), label="training, last 100 episodes")
    has_levels = run.last("eval/train_return") is not None
    for name, marker in (("train", "o"), ("test", "s")):
        curve = run.curve(f"eval/{name}_return").finite()
        if curve.x.size:
            label = f"evaluation, {name} levels" if has_levels else "evaluation"
            above.plot(curve.x, curve.y, marker=marker, label=label)
    above.set_ylabel("return")
    with_dense = {name: np.append(dense_widths[name], widths) for name, widths in run.widths().items()}
    for names, (dense, *widths) in equal_widths(with_dense):
        label = f"{names[0]} ({dense:g})" if len(names) == 1 else f"{len(names)} groups ({dense:g} each)"
        below.step(steps, np.array(widths) / dense, where="post", label=label)
    below.set_ylim(0, 1.05)
    below.set_ylabel("width / dense width")
    below.set_xlabel("environment steps")
    for axis in (above, below):
        axis.xaxis.set_major_formatter(format_steps)
        if axis.get_legend_handles_labels()[0]:  # a network without groups has no widths
            axis.legend(frameon=False)
    path = folder / "curves.png"
    figure.savefig(path)
    return path
