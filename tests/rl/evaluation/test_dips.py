from __future__ import annotations

import math

import numpy as np
import pytest

from gsprune.rl.evaluation.dips import ReturnSeries, find_dips, summarise_dips


def series(returns: list[float], step: int = 10, episodes: list[float] | None = None) -> ReturnSeries:
    values = np.array(returns, dtype=np.float64)
    count = np.ones(len(values)) if episodes is None else np.array(episodes, dtype=np.float64)
    return ReturnSeries(step * np.arange(1, len(values) + 1), values, count)


def test_a_drop_after_an_event_is_measured_and_its_recovery_timed() -> None:
    data = series([5, 5, 5, 5, 1, 1, 3, 5, 5, 5])  # steps 10 .. 100, event at 40
    (dip,) = find_dips(data, [40], window=20, horizon=60)
    assert (dip.start, dip.end, dip.before, dip.lowest) == (40, 40, 5.0, 1.0)
    assert dip.depth == 4.0
    assert dip.recovery == 50  # (70, 90] is the first window back at 5


def test_a_return_that_only_rises_has_no_dip() -> None:
    (dip,) = find_dips(series([1, 2, 3, 4, 5, 6, 7, 8]), [40], window=20, horizon=40)
    assert dip.depth < 0
    assert dip.recovery == 0


def test_a_return_that_stays_down_never_recovers() -> None:
    (dip,) = find_dips(series([5, 5, 5, 5, 1, 1, 1, 1]), [40], window=20, horizon=40)
    assert dip.recovery is None


def test_a_recovery_before_the_lowest_point_does_not_count() -> None:
    (dip,) = find_dips(series([5, 5, 5, 3, 6, 1, 1, 5, 5]), [30], window=10, horizon=60)
    assert dip.lowest == 1.0
    assert dip.recovery == 50


def test_windows_weigh_rows_by_their_episodes_and_skip_rows_without_any() -> None:
    data = series([4, 1, math.nan, 2, 2, 2], episodes=[1, 3, 0, 1, 1, 1])
    (dip,) = find_dips(data, [30], window=30, horizon=30)  # before: (4 + 3 * 1) / 4
    assert dip.before == pytest.approx(1.75)


def test_events_closer_than_the_window_are_one_burst() -> None:
    data = series([5.0] * 20)
    dips = find_dips(data, [60, 50, 40, 120], window=20, horizon=20)
    assert [(dip.start, dip.end) for dip in dips] == [(40, 60), (120, 120)]


def test_events_without_episodes_on_both_sides_are_left_out() -> None:
    data = series([math.nan, math.nan, 5, 5, 5], episodes=[0, 0, 1, 1, 1])
    assert find_dips(data, [20], window=10, horizon=10) == ()
    assert find_dips(data, [50], window=10, horizon=10) == ()


def test_control_points_show_that_a_dip_is_only_noise() -> None:
    rng = np.random.default_rng(0)
    noise = series(list(rng.normal(10, 3, size=20_000)))
    summary = summarise_dips(noise, list(range(2_000, 200_000, 2_000)), window=100, horizon=500)
    assert summary.depth > 0.5  # the lowest of many windows is low without any cause
    assert abs(summary.depth - summary.control_depth) < 0.4


def test_a_true_dip_stands_out_of_the_control_points() -> None:
    rng = np.random.default_rng(1)
    returns = rng.normal(10, 1, size=2_000)
    events = list(range(2_000, 20_000, 2_000))
    for event in events:
        returns[event // 10 : event // 10 + 20] -= 6
    summary = summarise_dips(series(list(returns)), events, window=100, horizon=500)
    assert summary.depth - summary.control_depth == pytest.approx(6, abs=0.7)
    assert summary.recovered == 1.0
    assert 200 <= summary.recovery <= 500


def test_a_run_without_events_has_no_dip_but_controls() -> None:
    summary = summarise_dips(series([1.0] * 50), [], window=20, horizon=40)
    assert summary.dips == ()
    assert math.isnan(summary.depth)
    assert math.isnan(summary.recovered)
    assert summary.control_depth == 0.0


def test_an_empty_series_gives_an_empty_summary() -> None:
    empty = ReturnSeries(np.array([], dtype=np.int64), np.array([]), np.array([]))
    summary = summarise_dips(empty, [10], window=1, horizon=1)
    assert summary.dips == ()
    assert math.isnan(summary.control_depth)


def test_bad_windows_and_series_are_refused() -> None:
    with pytest.raises(ValueError, match="`window` must be at least 1"):
        find_dips(series([1.0]), [10], window=0, horizon=5)
    with pytest.raises(ValueError, match=r"`horizon` must be at least `window` \(20\), got 10"):
        find_dips(series([1.0]), [10], window=20, horizon=10)
    with pytest.raises(ValueError, match="must ascend strictly"):
        ReturnSeries(np.array([2, 2]), np.zeros(2), np.zeros(2))
    with pytest.raises(ValueError, match="vectors of one length"):
        ReturnSeries(np.array([1, 2]), np.zeros(3), np.zeros(2))
