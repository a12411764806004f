"""MinAtar's games for `gsprune train ppo --env-id minatar_games:breakout`: frames (C, 10, 10) uint8, minimal actions.

MinAtar (Young and Tian 2019, arXiv:1903.03176) reduces five Atari games to 10 x 10 frames with a channel per kind of
object. Sticky actions (0.1) and rising difficulty are its defaults. `pip install MinAtar`.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import gymnasium
import minatar
import numpy as np
from gymnasium.spaces import Box, Discrete

__all__ = ["asterix", "breakout", "freeway", "seaquest", "space_invaders"]


class MinAtarGame(gymnasium.Env[np.ndarray, int]):
    """One game; an object is a pixel of 255 in its channel."""

    def __init__(self, name: str) -> None:
        """Make the game `name`."""
        self._game = minatar.Environment(name)
        self._actions = self._game.minimal_action_set()
        height, width, channels = self._game.state_shape()
        self.observation_space = Box(0, 255, (channels, height, width), np.uint8)
        self.action_space = Discrete(len(self._actions))

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """Begin an episode; `seed` is that of the game's randomness."""
        super().reset(seed=seed)
        self._game.seed(seed)
        self._game.reset()
        return self._frame(), {}

    def step(self, action: int) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        """Act for one frame."""
        reward, has_ended = self._game.act(self._actions[action])
        return self._frame(), float(reward), bool(has_ended), False, {}

    def _frame(self) -> np.ndarray:
        return np.ascontiguousarray(self._game.state().transpose(2, 0, 1)).astype(np.uint8) * np.uint8(255)


asterix: Callable[[], MinAtarGame] = partial(MinAtarGame, "asterix")
breakout: Callable[[], MinAtarGame] = partial(MinAtarGame, "breakout")
freeway: Callable[[], MinAtarGame] = partial(MinAtarGame, "freeway")
seaquest: Callable[[], MinAtarGame] = partial(MinAtarGame, "seaquest")
space_invaders: Callable[[], MinAtarGame] = partial(MinAtarGame, "space_invaders")
