"""Normalised Procgen scores: the returns of a random-like and of a perfect agent, per game and difficulty.

Source of the constants: Cobbe et al. 2020, Leveraging Procedural Generation to Benchmark Reinforcement Learning,
appendix C, https://arxiv.org/abs/1912.01588
"""

from __future__ import annotations

from typing import NamedTuple

__all__ = ["RANGES", "ScoreRange", "score_range"]


class ScoreRange(NamedTuple):
    """The returns that map to 0 and to 1, in reward units."""

    low: float
    high: float

    def normalised(self, value: float) -> float:
        """A return on the scale where `low` is 0 and `high` is 1; not clipped."""
        return (value - self.low) / (self.high - self.low)


RANGES: dict[str, dict[str, ScoreRange]] = {
    "easy": {
        "bigfish": ScoreRange(1, 40),
        "bossfight": ScoreRange(0.5, 13),
        "caveflyer": ScoreRange(3.5, 12),
        "chaser": ScoreRange(0.5, 13),
        "climber": ScoreRange(2, 12.6),
        "coinrun": ScoreRange(5, 10),
        "dodgeball": ScoreRange(1.5, 19),
        "fruitbot": ScoreRange(-1.5, 32.4),
        "heist": ScoreRange(3.5, 10),
        "jumper": ScoreRange(3, 10),
        "leaper": ScoreRange(3, 10),
        "maze": ScoreRange(5, 10),
        "miner": ScoreRange(1.5, 13),
        "ninja": ScoreRange(3.5, 10),
        "plunder": ScoreRange(4.5, 30),
        "starpilot": ScoreRange(2.5, 64),
    },
    "hard": {
        "bigfish": ScoreRange(0, 40),
        "bossfight": ScoreRange(0.5, 13),
        "caveflyer": ScoreRange(2, 13.4),
        "chaser": ScoreRange(0.5, 14.2),
        "climber": ScoreRange(1, 12.6),
        "coinrun": ScoreRange(5, 10),
        "dodgeball": ScoreRange(1.5, 19),
        "fruitbot": ScoreRange(-0.5, 27.2),
        "heist": ScoreRange(2, 10),
        "jumper": ScoreRange(1, 10),
        "leaper": ScoreRange(1.5, 10),
        "maze": ScoreRange(4, 10),
        "miner": ScoreRange(1.5, 20),
        "ninja": ScoreRange(2, 10),
        "plunder": ScoreRange(3, 30),
        "starpilot": ScoreRange(1.5, 35),
    },
}
"""``RANGES[difficulty][game]``."""


def score_range(game: str, difficulty: str) -> ScoreRange:
    """The range of a Procgen game.

    Raises:
        ValueError: an unknown difficulty or game.
    """
    if difficulty not in RANGES:
        raise ValueError(f"`difficulty` must be one of {sorted(RANGES)}, got {difficulty!r}")
    if game not in RANGES[difficulty]:
        raise ValueError(f"`game` must be one of {sorted(RANGES[difficulty])}, got {game!r}")
    return RANGES[difficulty][game]
