from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from gsprune.report.series import Curve, mean_band


def curve(x: Sequence[float], y: Sequence[float]) -> Curve:
    return Curve(np.array(x, dtype=np.float64), np.array(y, dtype=np.float64))


def test_between_points_a_curve_is_straight_and_beyond_them_unknown() -> None:
    values = curve([1, 2, 4], [10, 20, 40]).at(np.array([0.5, 1, 1.5, 2, 3, 4, 9]))
    np.testing.assert_array_equal(values, [np.nan, 10, 15, 20, 30, 40, np.nan])


def test_rows_without_a_value_are_passed_over() -> None:
    values = curve([1, 2, 3], [10, np.nan, 30]).at(np.array([1, 2]))
    np.testing.assert_array_equal(values, [10, 20])


def test_curves_at_the_same_steps_are_averaged_there_and_nowhere_else() -> None:
    band = mean_band([curve([1, 5, 7], [0, 2, 4]), curve([1, 5, 7], [2, 4, 6])])
    assert band is not None
    np.testing.assert_array_equal(band.x, [1, 5, 7])
    np.testing.assert_array_equal(band.mean, [1, 3, 5])
    assert band.runs == 2


def test_the_mean_covers_what_all_curves_cover() -> None:
    band = mean_band([curve([1, 2, 2.5, 3, 4], [1, 1, 1, 1, 1]), curve([2, 3], [3, 3])])
    assert band is not None
    np.testing.assert_array_equal(band.x, [2, 2.5, 3])
    np.testing.assert_array_equal(band.mean, [2, 2, 2])


def test_long_curves_are_thinned_to_an_even_grid() -> None:
    steps = list(range(1_001))
    band = mean_band([curve(steps, steps)], points=5)
    assert band is not None
    np.testing.assert_allclose(band.x, [0, 250, 500, 750, 1_000])
    np.testing.assert_allclose(band.mean, band.x)


def test_the_band_of_two_runs_is_their_range_and_of_one_its_line() -> None:
    two = mean_band([curve([1], [0]), curve([1], [4])])
    one = mean_band([curve([1, 2], [0, 4])])
    assert two is not None
    assert one is not None
    assert (two.low[0], two.mean[0], two.high[0]) == (0, 2, 4)
    np.testing.assert_array_equal(one.low, one.high)


def test_the_band_of_many_runs_is_the_interval_of_their_mean() -> None:
    rng = np.random.default_rng(0)
    values = rng.normal(0, 1, size=100)
    band = mean_band([curve([1], [value]) for value in values])
    assert band is not None
    assert band.high[0] - band.low[0] == pytest.approx(2 * 1.96 * values.std() / 10, rel=0.15)


def test_nothing_to_show_is_none() -> None:
    assert mean_band([]) is None
    assert mean_band([curve([1, 2], [np.nan, np.nan])]) is None
    assert mean_band([curve([1, 2], [0, 0]), curve([3, 4], [0, 0])]) is None
