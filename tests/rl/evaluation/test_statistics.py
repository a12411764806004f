from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from gsprune.rl.evaluation.statistics import (
    bootstrap_interval,
    improvement_interval,
    interquartile_mean,
    mean,
    performance_profile,
    probability_of_improvement,
)


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([7.0], 7.0),
        ([1.0, 2.0, 6.0], 3.0),  # floor(3 / 4) = 0: nothing is trimmed
        ([0.0, 1.0, 3.0, 100.0], 2.0),
        ([100.0, 3.0, 0.0, 1.0], 2.0),
        ([-50.0, 1.0, 2.0, 3.0, 900.0], 2.0),
        ([5.0, 5.0, 5.0, 5.0, 5.0], 5.0),
        (list(range(8)), 3.5),
        ([0, 0, 1, 2, 3, 4, 9, 99], 2.5),
    ],
)
def test_iqm_is_the_mean_of_the_middle_half(values: list[float], expected: float) -> None:
    assert interquartile_mean(np.array(values, dtype=np.float64)) == pytest.approx(expected)


def test_iqm_reduces_the_last_axis_as_it_reduces_each_row() -> None:
    table = rng().normal(size=(4, 3, 11))
    rows = [[interquartile_mean(row) for row in block] for block in table]
    np.testing.assert_allclose(interquartile_mean(table), rows)


def test_iqm_ignores_outliers_in_a_quarter_of_the_runs() -> None:
    values = rng().normal(size=40)
    outliers = np.sort(values)
    outliers[-10:] = 1e9
    assert interquartile_mean(values) == pytest.approx(interquartile_mean(outliers))


def test_iqm_refuses_nothing() -> None:
    with pytest.raises(ValueError, match="at least one score"):
        interquartile_mean(np.empty((3, 0)))


def test_the_interval_of_a_mean_is_the_normal_one_for_many_runs() -> None:
    values = rng(1).normal(10.0, 2.0, size=400)
    interval = bootstrap_interval({"game": values}, mean, rng=rng(2))
    half = 1.959964 * values.std() / np.sqrt(400)  # the bootstrap's standard error has divisor n
    assert interval.estimate == pytest.approx(values.mean())
    assert interval.low == pytest.approx(values.mean() - half, abs=0.02)
    assert interval.high == pytest.approx(values.mean() + half, abs=0.02)


def test_the_interval_is_stratified_so_differences_between_games_do_not_widen_it() -> None:
    games = {"low": np.zeros(5), "high": np.full(5, 100.0)}
    interval = bootstrap_interval(games, mean, rng=rng(3))
    assert (interval.low, interval.estimate, interval.high) == (50.0, 50.0, 50.0)


def test_the_resampled_mean_of_two_runs_has_the_binomial_distribution() -> None:
    # Runs 0 and 1: the resampled mean is 0, 1/2, 1 with probability 1/4, 1/2, 1/4.
    for confidence, bounds in [(0.4, (0.5, 0.5)), (0.6, (0.0, 1.0))]:
        interval = bootstrap_interval({"game": [0.0, 1.0]}, mean, rng=rng(4), confidence=confidence)
        assert (interval.low, interval.high) == bounds


def test_one_run_gives_a_point() -> None:
    interval = bootstrap_interval({"game": [3.0]}, rng=rng())
    assert (interval.low, interval.estimate, interval.high) == (3.0, 3.0, 3.0)


def test_games_may_have_different_numbers_of_runs() -> None:
    interval = bootstrap_interval({"a": [1.0, 1.0], "b": [4.0]}, mean, rng=rng())
    assert interval.estimate == pytest.approx(2.0)


def test_intervals_repeat_from_the_same_seed_and_resamples_need_not_fill_a_block() -> None:
    games = {"game": rng(5).normal(size=7)}
    first = bootstrap_interval(games, rng=rng(6), resamples=1_234)
    assert first == bootstrap_interval(games, rng=rng(6), resamples=1_234)
    assert first.low < first.estimate < first.high


@pytest.mark.parametrize(
    ("games", "options", "message"),
    [
        ({}, {}, "at least one game"),
        ({"bigfish": []}, {}, r"`scores\['bigfish'\]` must be a vector of at least one run"),
        ({"bigfish": [1.0, float("nan")]}, {}, "must be finite"),
        ({"bigfish": [1.0]}, {"resamples": 0}, "`resamples` must be at least 1, got 0"),
        ({"bigfish": [1.0]}, {"confidence": 95}, "`confidence` must lie in .* got 95"),
    ],
)
def test_bad_scores_are_refused(games: Any, options: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        bootstrap_interval(games, rng=rng(), **options)


@pytest.mark.parametrize(
    ("left", "right", "expected"),
    [
        ([1.0, 2.0], [0.0, 0.5], 1.0),
        ([0.0], [1.0], 0.0),
        ([1.0, 2.0, 3.0], [1.0, 2.0, 3.0], 0.5),
        ([1.0, 1.0], [1.0], 0.5),
        ([0.0, 3.0], [1.0, 2.0], 0.5),
        ([2.0, 3.0], [1.0, 2.0, 9.0], 3.5 / 6),
    ],
)
def test_probability_of_improvement_counts_pairs(left: Any, right: Any, expected: float) -> None:
    assert probability_of_improvement({"g": left}, {"g": right}) == pytest.approx(expected)


def test_probability_of_improvement_weighs_games_equally() -> None:
    left = {"a": [1.0] * 10, "b": [0.0]}
    right = {"b": [1.0], "a": [0.0] * 10}
    assert probability_of_improvement(left, right) == pytest.approx(0.5)


def test_probability_of_improvement_of_normals_is_the_normal_integral() -> None:
    left, right = rng(7).normal(1, 1, 2_000), rng(8).normal(0, 1, 2_000)
    # P(X > Y) = Phi(1 / sqrt 2) = 0.7602
    assert probability_of_improvement({"g": left}, {"g": right}) == pytest.approx(0.7602, abs=0.02)


def test_the_improvement_interval_holds_the_estimate() -> None:
    noisy = improvement_interval({"g": rng(9).normal(0.3, 1, 12)}, {"g": rng(10).normal(0, 1, 12)}, rng=rng())
    assert 0 < noisy.low < noisy.estimate < noisy.high < 1


@pytest.mark.parametrize(
    ("left", "right", "low", "high"),
    [
        ({"g": [5.0, 6.0]}, {"g": [1.0, 2.0]}, 0.025 ** (1 / 2), 1.0),
        ({"g": [1.0, 2.0]}, {"g": [5.0, 6.0]}, 0.0, 1 - 0.025 ** (1 / 2)),
        ({"g": [1.0] * 10}, {"g": [0.0] * 5}, 0.025 ** (1 / 5), 1.0),
        ({"a": [1.0] * 3, "b": [1.0] * 3}, {"a": [0.0] * 3, "b": [0.0] * 3}, 0.025 ** (1 / 6), 1.0),
        # One game is won and one is lost: each may be less certain than it looks.
        ({"a": [1.0] * 2, "b": [0.0] * 2}, {"a": [0.0] * 2, "b": [1.0] * 2}, 0.025**0.5 / 2, 1 - 0.025**0.5 / 2),
        ({"g": [1.0, 1.0]}, {"g": [1.0, 1.0]}, 0.0, 1.0),  # two ties show nothing
    ],
)
def test_where_all_pairs_agree_the_improvement_interval_is_the_binomial_bound(
    left: Any, right: Any, low: float, high: float
) -> None:
    interval = improvement_interval(left, right, rng=rng(), resamples=100)
    assert (interval.low, interval.high) == pytest.approx((low, high))


def test_a_decided_game_adds_to_the_spread_of_an_undecided_one() -> None:
    undecided = [0.0, 1.0, 2.0, 3.0], [0.5, 1.5, 2.5, -1.0]
    interval = improvement_interval(
        {"a": undecided[0], "b": [9.0, 9.0]}, {"a": undecided[1], "b": [0.0, 0.0]}, rng=rng(), resamples=200
    )
    assert interval.low <= interval.estimate - (1 - 0.025**0.5) / 2


def test_different_games_cannot_be_compared() -> None:
    with pytest.raises(ValueError, match="must cover the same games"):
        probability_of_improvement({"a": [1.0]}, {"b": [1.0]})


def test_a_profile_is_the_share_of_runs_above_the_threshold() -> None:
    profile = performance_profile({"g": [0.0, 0.5, 1.0, 1.0]}, [-1, 0, 0.5, 0.9, 1], rng=rng())
    np.testing.assert_allclose(profile.share, [1, 0.75, 0.5, 0.5, 0])


def test_a_profile_weighs_games_equally_and_its_band_is_the_binomial_one() -> None:
    scores = {"a": np.r_[np.zeros(50), np.ones(50)], "b": np.zeros(3)}
    profile = performance_profile(scores, [0.5], rng=rng(11))
    assert profile.share[0] == pytest.approx(0.25)
    half = 1.96 * np.sqrt(0.5 * 0.5 / 100) / 2  # game b adds no spread
    assert profile.low[0] == pytest.approx(0.25 - half, abs=0.01)
    assert profile.high[0] == pytest.approx(0.25 + half, abs=0.01)


def test_a_profile_falls_and_its_band_contains_it() -> None:
    profile = performance_profile({"g": rng(12).normal(size=20)}, np.linspace(-3, 3, 50), rng=rng())
    assert (np.diff(profile.share) <= 0).all()
    assert (profile.low <= profile.share).all()
    assert (profile.share <= profile.high).all()


def test_descending_thresholds_are_refused() -> None:
    with pytest.raises(ValueError, match="ascending vector"):
        performance_profile({"g": [1.0]}, [1.0, 0.0], rng=rng())
