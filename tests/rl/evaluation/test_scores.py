from __future__ import annotations

import numpy as np
import pytest
from own_provider import OwnProvider

from gsprune.rl.envs import registry
from gsprune.rl.envs.provider import EnvironmentRequest
from gsprune.rl.evaluation.scores import RANGES, ScoreRange, score_range


def test_all_sixteen_games_have_a_range_in_both_difficulties() -> None:
    assert len(RANGES["easy"]) == 16
    assert RANGES["easy"].keys() == RANGES["hard"].keys()
    assert all(low < high for ranges in RANGES.values() for low, high in ranges.values())


@pytest.mark.parametrize(
    ("game", "difficulty", "low", "high"),
    [
        ("bigfish", "easy", 1, 40),
        ("fruitbot", "hard", -0.5, 27.2),
        ("starpilot", "hard", 1.5, 35),
        ("maze", "easy", 5, 10),
    ],
)
def test_the_bounds_are_those_of_the_benchmark(game: str, difficulty: str, low: float, high: float) -> None:
    assert score_range(game, difficulty) == (low, high)


def test_the_bounds_map_to_zero_and_one_and_nothing_is_clipped() -> None:
    scores = [score_range("bigfish", "easy").normalised(value) for value in (1.0, 40.0, 20.5, -38.0)]
    np.testing.assert_allclose(scores, [0, 1, 0.5, -1])


def test_unknown_games_and_difficulties_name_the_choices() -> None:
    with pytest.raises(ValueError, match=r"`game` must be one of .*'bigfish'.*, got 'pong'"):
        score_range("pong", "easy")
    with pytest.raises(ValueError, match=r"`difficulty` must be one of .*, got 'extreme'"):
        score_range("bigfish", "extreme")


def test_a_provider_of_ones_own_gives_the_scale_of_its_environments(monkeypatch: pytest.MonkeyPatch) -> None:
    provider = OwnProvider("lights", (3, 36, 36), lambda request: None)
    monkeypatch.setattr(registry, "_registered", [provider])
    assert registry.score_range_of(EnvironmentRequest("lights")) is None
    monkeypatch.setattr(provider, "score_range", lambda request: ScoreRange(2, 12))
    scale = registry.score_range_of(EnvironmentRequest("lights"))
    assert scale is not None
    assert scale.normalised(7) == 0.5
