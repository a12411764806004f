"""Pictures over all games: nothing that is written in them overlaps or is cut."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from matplotlib.axis import Axis
from matplotlib.transforms import Bbox

from gsprune.report.plots_over_games import performance_profiles, score_intervals
from gsprune.report.style import plot_styles

LISTED = "group 0.8 (scope=isomorphic, importance=taylor, rescale=True, round_to=8, min_channels=4, prune_end=0.95)"


def drawn_labels(axis: Axis) -> list[Bbox]:
    """Where the numbers or names of an axis lie, without those beyond its ends, which are not drawn."""
    low, high = sorted(axis.get_view_interval())
    ticks = [tick for tick in axis.get_major_ticks() if low <= tick.get_loc() <= high and tick.label1.get_text()]
    return [tick.label1.get_window_extent() for tick in ticks]


@pytest.mark.parametrize(
    ("methods", "low", "high"),
    [
        (["dense", "group 0.8"], 0.0021, 0.0024),
        ([f"a method with a longer name, {i}" for i in range(14)], -0.01, 0.5),
        (["dense", LISTED, f"{LISTED}, compile=True"], -1234.5, -1200.0),
        (["dense"], 0.12345671, 0.12345672),
    ],
)
def test_no_label_touches_another_and_all_lie_in_the_picture(methods: list[str], low: float, high: float) -> None:
    rng = np.random.default_rng(0)
    scores = {
        method: {game: list(rng.uniform(low, high, 2)) for game in ("bigfish", "bossfight", "maze")}
        for method in methods
    }
    for figure in (score_intervals(scores, plot_styles(methods)), performance_profiles(scores, plot_styles(methods))):
        assert figure is not None
        figure.draw_without_rendering()
        for side in ("xaxis", "yaxis"):
            boxes = [box for panel in figure.axes for box in drawn_labels(getattr(panel, side))]
            assert not any(first.overlaps(second) for first, second in combinations(boxes, 2))
        whole = figure.get_tightbbox()
        assert whole.width <= figure.get_figwidth()
        assert whole.height <= figure.get_figheight()
        plot = figure.axes[0].get_window_extent().width / figure.dpi
        assert plot > 2.5  # inches, however long the names are
