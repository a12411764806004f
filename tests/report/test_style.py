from __future__ import annotations

import pytest

from gsprune.report.style import format_seconds, format_steps, plot_styles


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0"), (999, "999"), (1_000, "1k"), (32_768, "32.8k"), (200_000, "200k"), (1.5e6, "1.5M"), (25e6, "25M")],
)
def test_steps_are_written_for_people(value: float, text: str) -> None:
    assert format_steps(value) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.5, "0.5 s"),
        (42, "42 s"),
        (59.7, "1 min 00 s"),
        (200, "3 min 20 s"),
        (3_599.6, "1 h 00 min"),
        (7_500, "2 h 05 min"),
    ],
)
def test_durations_are_written_for_people(seconds: float, text: str) -> None:
    assert format_seconds(seconds) == text


def test_up_to_twenty_eight_methods_look_different() -> None:
    drawn = plot_styles([str(i) for i in range(28)]).values()
    assert len({(style.colour, style.line) for style in drawn}) == 28
