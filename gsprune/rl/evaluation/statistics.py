"""Aggregate statistics over games x runs for few seeds: point estimates, intervals and comparisons.

Scores come as a mapping ``{game: (runs,) array}``; games may have different numbers of runs. Everything is NumPy, in
float64, and reproducible from the generator passed in.

Source: Agarwal et al. 2021, Deep RL at the Edge of the Statistical Precipice, https://arxiv.org/abs/2108.13264
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from gsprune.arrays import Float64Array
from gsprune.checks import check_whole

__all__ = [
    "Interval",
    "Profile",
    "Scores",
    "bootstrap_interval",
    "improvement_interval",
    "interquartile_mean",
    "mean",
    "performance_profile",
    "probability_of_improvement",
]

Scores = Mapping[str, npt.ArrayLike]
Statistic = Callable[[Float64Array], Float64Array]
"""Reduces the last axis of a ``(..., n)`` float64 array, so that all resamples are reduced in one call."""

_CONFIDENCE = 0.95
_PROFILE_RESAMPLES = 2_000
# Resamples drawn at a time: bounds the memory to 1,000 x runs x 8 bytes (40 MB for 16 games x 300 runs).
_RESAMPLES_PER_BLOCK = 1_000


@dataclass(frozen=True)
class Interval:
    """A point estimate with its confidence interval, in the unit of the scores."""

    estimate: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.estimate:.3f} [{self.low:.3f}, {self.high:.3f}]"


@dataclass(frozen=True)
class Profile:
    """A performance profile: the share of runs above each threshold, with a pointwise band.

    Attributes:
        share: (T,) float64 in [0, 1]; the mean over games of each game's share of runs above the threshold.
        low: (T,) float64, lower end of the band.
        high: (T,) float64, upper end of the band.
    """

    share: Float64Array
    low: Float64Array
    high: Float64Array


def mean(values: Float64Array) -> Float64Array:
    """The mean over the last axis of a (..., n) float64 array."""
    return np.asarray(np.mean(values, axis=-1), dtype=np.float64)


def interquartile_mean(values: Float64Array) -> Float64Array:
    """The mean of the middle half of the values: the 25 % trimmed mean.

        IQM(x) = mean(x_(k + 1), ..., x_(n - k)),  k = floor(n / 4),  x_(i) the i-th smallest

    Args:
        values: (..., n) float64, n >= 1; with n < 4 nothing is trimmed.

    Returns:
        (...) float64, reduced over the last axis.

    Raises:
        ValueError: the last axis is empty.

    Source: Agarwal et al. 2021, sec. 4.3, https://arxiv.org/abs/2108.13264
    """
    count = values.shape[-1]
    if count == 0:
        raise ValueError("`values` must hold at least one score, got an empty last axis")
    trimmed = count // 4
    # A full sort would do as well; partitioning at both cuts is linear in n.
    cuts = (trimmed, count - trimmed - 1)
    return mean(np.partition(values, cuts, axis=-1)[..., trimmed : count - trimmed])


def bootstrap_interval(
    scores: Scores,
    statistic: Statistic = interquartile_mean,
    *,
    rng: np.random.Generator,
    resamples: int = 10_000,
    confidence: float = _CONFIDENCE,
) -> Interval:
    """The statistic over all runs of all games, with its stratified percentile bootstrap interval.

    Each resample draws, within every game, as many runs as the game has, with replacement; the pooled draws go through
    `statistic`. A game with one run contributes no spread: with one run everywhere the interval is a point.

    Args:
        scores: per game (runs,) scores, finite.
        statistic: reduces the last axis of a (resamples, all runs) array.
        rng: source of the resampling.
        resamples: number of bootstrap resamples, at least 1.
        confidence: coverage of the interval, in (0, 1).

    Returns:
        The statistic of the scores themselves, and the percentiles (1 ± confidence) / 2 of the resampled statistic.

    Raises:
        ValueError: no game, an empty or non-finite game, `resamples` < 1, or `confidence` outside (0, 1).

    Source: Agarwal et al. 2021, sec. 4.1 (stratified bootstrap), https://arxiv.org/abs/2108.13264
    """
    games = _checked(scores, "scores")
    check_whole("resamples", resamples, at_least=1)
    if not 0 < confidence < 1:
        raise ValueError(f"`confidence` must lie in (0, 1), got {confidence}; 95 % is 0.95")
    draws = _draws(resamples, lambda count: statistic(np.concatenate(_resampled(games, count, rng), axis=-1)))
    pooled = np.concatenate(list(games.values()))
    low, high = _bounds(draws, confidence)
    return Interval(float(statistic(pooled)), float(low), float(high))


def probability_of_improvement(scores: Scores, baseline: Scores) -> float:
    """The probability that a run of one method beats a run of another on a game drawn at random.

        P(X > Y) = mean over games of  mean_ij [x_i > y_j] + [x_i = y_j] / 2     (Mann-Whitney U / (n m))

    Args:
        scores: per game (runs,) scores of X.
        baseline: per game (runs,) scores of Y; the same games.

    Returns:
        A probability; 0.5 if the methods are alike.

    Raises:
        ValueError: the games differ, or a game is empty or not finite.

    Source: Agarwal et al. 2021, sec. 4.3, https://arxiv.org/abs/2108.13264
    """
    left, right = _checked_pair(scores, baseline)
    return float(np.mean([_win_rate(left[game][None], right[game][None])[0] for game in left]))


def improvement_interval(
    scores: Scores,
    baseline: Scores,
    *,
    rng: np.random.Generator,
    resamples: int = 10_000,
) -> Interval:
    """`probability_of_improvement` with its 95 % stratified bootstrap interval; both methods' runs are resampled.

    In a game where one method wins all pairs, or where all runs tie, every resample is the same, however few there are.
    The interval is then widened to the exact binomial bound: n independent pairs have one result with chance p^n, so

        p >= 0.025^(1 / n),  n = min(runs of X, runs of Y)

    Games with the same result count as one sample: n is their number times the smallest n among them. For two runs of
    each in one game: 0.16 to 1. The arguments and errors are those of `probability_of_improvement` and
    `bootstrap_interval`.

    Source: Agarwal et al. 2021, sec. 4.3; Clopper & Pearson 1934, https://doi.org/10.1093/biomet/26.4.404
    """
    left, right = _checked_pair(scores, baseline)
    check_whole("resamples", resamples, at_least=1)

    def draw(count: int) -> Float64Array:
        pairs = zip(_resampled(left, count, rng), _resampled(right, count, rng), strict=True)
        return np.asarray(np.mean([_win_rate(x, y) for x, y in pairs], axis=0))

    low, high = _bounds(_draws(resamples, draw))
    estimate = probability_of_improvement(left, right)
    least, most = estimate - _uncertainty_of_decided(left, right), estimate + _uncertainty_of_decided(right, left)
    return Interval(estimate, max(0.0, min(float(low), least)), min(1.0, max(float(high), most)))


def performance_profile(scores: Scores, thresholds: npt.ArrayLike, *, rng: np.random.Generator) -> Profile:
    """The share of runs above each threshold, averaged over games, with a pointwise 95 % bootstrap band.

        F(t) = mean over games of  mean_i [x_i > t]

    Args:
        scores: per game (runs,) scores.
        thresholds: (T,) ascending thresholds, in the unit of the scores.
        rng: source of the resampling.

    Returns:
        The profile; `share` falls monotonically in the threshold.

    Raises:
        ValueError: the thresholds are not a non-empty ascending vector; no game; an empty or non-finite game.

    Source: Agarwal et al. 2021, sec. 4.2 (run-score distributions), https://arxiv.org/abs/2108.13264
    """
    games = _checked(scores, "scores")
    levels = np.asarray(thresholds, dtype=np.float64)
    if levels.ndim != 1 or levels.size == 0 or np.any(np.diff(levels) < 0):
        raise ValueError(f"`thresholds` must be a non-empty ascending vector, got shape {levels.shape}")
    above = {game: (values[:, None] > levels).astype(np.float64) for game, values in games.items()}  # (runs, T)
    share = np.mean([rows.mean(axis=0) for rows in above.values()], axis=0)

    def draw(count: int) -> Float64Array:
        per_game = []
        for rows in above.values():
            # Runs drawn with replacement, as multiplicities: a matrix product instead of a (count, runs, T) gather.
            counts = rng.multinomial(len(rows), np.full(len(rows), 1 / len(rows)), size=count)
            per_game.append(counts @ rows / len(rows))
        return np.asarray(np.mean(per_game, axis=0))

    low, high = _bounds(_draws(_PROFILE_RESAMPLES, draw))
    return Profile(np.asarray(share), low, high)


def _win_rate(left: Float64Array, right: Float64Array) -> Float64Array:
    """(B,) share of pairs of (B, n) and (B, m) in which the left is larger; ties count a half."""
    above = left[:, :, None] > right[:, None, :]
    equal = left[:, :, None] == right[:, None, :]
    return np.asarray(np.mean(above + 0.5 * equal, axis=(1, 2)))


def _uncertainty_of_decided(winner: Mapping[str, Float64Array], loser: Mapping[str, Float64Array]) -> float:
    """How much lower the mean probability may be in view of games where `winner` wins every pair, or all runs tie."""
    pairs = [
        min(len(runs), len(loser[game]))
        for game, runs in winner.items()
        if runs.min() > loser[game].max() or np.ptp(np.concatenate([runs, loser[game]])) == 0
    ]
    if not pairs:
        return 0.0
    least = ((1 - _CONFIDENCE) / 2) ** (1 / (len(pairs) * min(pairs)))
    return float((1 - least) * len(pairs) / len(winner))


def _resampled(games: Mapping[str, Float64Array], count: int, rng: np.random.Generator) -> list[Float64Array]:
    """Per game a (count, runs) array of runs drawn with replacement."""
    return [values[rng.integers(len(values), size=(count, len(values)))] for values in games.values()]


def _draws(resamples: int, draw: Callable[[int], Float64Array]) -> Float64Array:
    """(resamples, ...) values of `draw`, which returns as many as it is asked for, a block at a time."""
    starts = range(0, resamples, _RESAMPLES_PER_BLOCK)
    return np.concatenate([draw(min(_RESAMPLES_PER_BLOCK, resamples - start)) for start in starts])


def _bounds(draws: Float64Array, confidence: float = _CONFIDENCE) -> Float64Array:
    """The percentiles (1 ± confidence) / 2 over the first axis."""
    tail = (1 - confidence) / 2
    return np.asarray(np.quantile(draws, [tail, 1 - tail], axis=0))


def _checked(scores: Scores, name: str) -> dict[str, Float64Array]:
    """The scores as float64 vectors, in the mapping's order."""
    if not scores:
        raise ValueError(f"`{name}` must hold at least one game, got none")
    games = {game: np.asarray(values, dtype=np.float64) for game, values in scores.items()}
    for game, values in games.items():
        if values.ndim != 1 or values.size == 0:
            raise ValueError(f"`{name}[{game!r}]` must be a vector of at least one run, got shape {values.shape}")
        if not np.all(np.isfinite(values)):
            raise ValueError(f"`{name}[{game!r}]` must be finite, got {values}; leave out runs that have no score")
    return games


def _checked_pair(scores: Scores, baseline: Scores) -> tuple[dict[str, Float64Array], dict[str, Float64Array]]:
    left, right = _checked(scores, "scores"), _checked(baseline, "baseline")
    if left.keys() != right.keys():
        raise ValueError(
            f"`scores` and `baseline` must cover the same games, got {sorted(left)} and {sorted(right)}; "
            "restrict both to the games they share"
        )
    return left, {game: right[game] for game in left}
