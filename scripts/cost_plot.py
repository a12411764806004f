"""Measures what a pruning step costs on networks of 0.1 million to 1 billion parameters: a table and a picture.

    python scripts/cost_plot.py bench/results/images/cost.png

Networks are chains of eight 3x3 convolutions, about 5 % of every group goes at every step; once with gradients and both
moments of Adam, once weights alone. What does not fit in memory together with what replaces it is left out, which is
said. Beside them stands the floor of `bench/floors.py`: read every weight once, copy what is kept.
"""

from __future__ import annotations

import argparse
import gc
import itertools
import math
import os
import resource
import statistics
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

import gsprune
from gsprune import _core
from gsprune.report.style import new_figure, plot_styles

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "bench"))
from floors import Floor, seconds_of

LAYERS = 8
KEPT = 0.95
WARM_UP = 3  # the first step traces and checks, the next two fetch memory that later ones use again
STEPS = 7
LONG = 1e8  # from so many parameters on the floor is measured in fewer rounds
WITH_MOMENTS = "gradients and two moments"
ALONE = "weights alone"


@dataclass(frozen=True)
class Point:
    """One network: medians over its steps.

    Attributes:
        kind: `WITH_MOMENTS` or `ALONE`.
        parameters: how many it has at the middle step.
        seconds: of a whole `prune_step`.
        floor: seconds that reading and copying as many bytes takes.
    """

    kind: str
    parameters: int
    seconds: float
    floor: float


def network(parameters: float, with_moments: bool) -> tuple[nn.Module, torch.optim.Optimizer]:
    """A chain of convolutions of about so many parameters and its optimizer."""
    width = round(math.sqrt(parameters / (9 * (LAYERS - 1))))
    sizes = [3, *[width] * LAYERS]
    layers = (nn.utils.skip_init(nn.Conv2d, a, b, 3, padding=1) for a, b in itertools.pairwise(sizes))
    model = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, 10))
    optimizer: torch.optim.Optimizer = torch.optim.SGD(model.parameters())
    scale = 1 / math.sqrt(9 * width)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.uniform_(-scale, scale)
    if with_moments:
        optimizer = torch.optim.Adam(model.parameters())
        for parameter in model.parameters():
            parameter.grad = torch.ones_like(parameter)
        optimizer.step()
    return model, optimizer


def measured(parameters: float, kind: str) -> Point:
    """Prune a fresh network step by step."""
    torch.manual_seed(0)
    model, optimizer = network(parameters, kind == WITH_MOMENTS)
    example = torch.zeros(1, 3, 4, 4)
    counts, seconds = [], []
    for step in range(1, WARM_UP + STEPS + 1):
        counts.append(sum(parameter.numel() for parameter in model.parameters()))
        started = time.perf_counter()
        gsprune.prune_step(model, 1 - KEPT**step, optimizer=optimizer, example_inputs=example if step == 1 else None)
        seconds.append(time.perf_counter() - started)
    middle = sorted(counts[WARM_UP:])[STEPS // 2]
    del model, optimizer
    gc.collect()
    _core.memory.trim_reserve()
    copies = 4 if kind == WITH_MOMENTS else 1
    rounds = STEPS if parameters < LONG else 2
    floor = Floor(4 * middle, int(4 * middle * copies * KEPT**2)).best(rounds)
    return Point(kind, middle, statistics.median(seconds[WARM_UP:]), statistics.median(seconds_of(floor, rounds)))


def sizes(largest: float) -> Iterator[tuple[float, str]]:
    """From 0.1 million up, two per decade."""
    for kind in (WITH_MOMENTS, ALONE):
        for half_decade in range(10, 1 + round(2 * math.log10(largest))):
            yield 10 ** (half_decade / 2), kind


def shortfall(parameters: float, kind: str) -> str:
    """Why this point cannot be measured here; empty if it can."""
    needed = 4 * parameters * (8 if kind == WITH_MOMENTS else 3) / 2**30  # a step's old and new; a check's masked copy
    free = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30
    if needed < free:
        return ""
    return f"{parameters / 1e6:.3g} M parameters, {kind}: needs {needed:.3g} GiB, {free:.3g} GiB are free"


HEADER = "| parameters | moved | floor ms | step ms | ratio | ns per parameter |\n" + "| --- " * 6 + "|"


def row(point: Point) -> str:
    """Markdown; the last column says whether the cost grows linearly."""
    return (
        f"| {point.parameters / 1e6:.3g} M | {point.kind} | {point.floor * 1e3:.3g} | {point.seconds * 1e3:.3g} |"
        f" {point.seconds / point.floor:.2g} | {point.seconds / point.parameters * 1e9:.3g} |"
    )


def draw(points: Sequence[Point], target: Path) -> None:
    """Cost against parameters, both logarithmic; floors are dashed."""
    figure, axes = new_figure(1, 1, width=6.0, height=4.0)
    axis = axes[0][0]
    look = plot_styles([WITH_MOMENTS, ALONE])
    for kind in look:
        chosen = [point for point in points if point.kind == kind]
        x = [point.parameters for point in chosen]
        style = {"color": look[kind].colour, "marker": look[kind].marker, "markersize": 4}
        axis.plot(x, [point.seconds * 1e3 for point in chosen], label=f"step, {kind}", **style)
        axis.plot(x, [point.floor * 1e3 for point in chosen], "--", label="its floor", **style, alpha=0.5)
    axis.set_xscale("log")
    axis.set_yscale("log")
    axis.set_xlabel("parameters before the step")
    axis.set_ylabel("milliseconds")
    axis.legend(frameon=False, fontsize=8)
    figure.savefig(target)


def main() -> None:
    """Measure, print the table, draw."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("picture", type=Path, help="where the picture goes")
    parser.add_argument("--largest", type=float, default=1e9, help="parameters of the largest network")
    arguments = parser.parse_args()
    points, left_out = [], []
    print(HEADER)
    for parameters, kind in sizes(arguments.largest):
        reason = shortfall(parameters, kind)
        if reason:
            left_out.append(reason)
            continue
        points.append(measured(parameters, kind))
        print(row(points[-1]), flush=True)
        draw(points, arguments.picture)
    print(*("\nnot measured:", *left_out) if left_out else (), sep="\n")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(f"\ntorch {torch.__version__}, {torch.get_num_threads()} threads, peak memory {peak:.1f} GiB")


if __name__ == "__main__":
    main()
