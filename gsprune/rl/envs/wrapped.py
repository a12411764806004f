"""The base class of vector environments that wrap one of another library."""

from __future__ import annotations

from typing import Any

import gymnasium

from gsprune.arrays import AnyArray, BoolArray, Uint8Array
from gsprune.rl.envs.episodes import EpisodeSums
from gsprune.rl.envs.provider import EnvironmentRequest

__all__ = ["WrappedGames"]


class WrappedGames(gymnasium.vector.VectorEnv[Uint8Array, AnyArray, AnyArray]):
    """Wraps a vector environment that resets within a step, and counts its episodes."""

    metadata: dict[str, Any] = {"autoreset_mode": gymnasium.vector.AutoresetMode.SAME_STEP, "render_modes": []}  # noqa: RUF012

    def __init__(self, games: Any, request: EnvironmentRequest) -> None:
        """Wrap `games`, which are closed with this environment."""
        self._games = games
        self.num_envs = request.num_envs
        self.single_observation_space = games.single_observation_space
        self.single_action_space = games.single_action_space
        self.observation_space = games.observation_space
        self.action_space = games.action_space
        self._seed: int | None = request.seed + request.first_env
        self._episodes = EpisodeSums(request.num_envs)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Uint8Array, dict[str, Any]]:
        """Start new episodes everywhere; return the first frames, and the infos of the wrapped environment.

        Args:
            seed: seed of environment 0; environment i has `seed` + i. None takes that of the request at the first call,
                and continues the random streams at later ones.
            options: passed on to the wrapped environment.
        """
        first, self._seed = self._seed, None
        frames, infos = self._games.reset(seed=first if seed is None else seed, options=options)
        self._episodes.reset()
        return frames, infos

    def _infos_of_step(self, infos: dict[str, Any], rewards: AnyArray, ended: BoolArray) -> dict[str, Any]:
        """The infos of episodes that ended, with their last observations; `rewards` are as the game gave them."""
        episodes = self._episodes.add(rewards, ended)
        return {**episodes, "final_obs": infos["final_obs"]} if "final_obs" in infos else episodes

    def close_extras(self, **kwargs: Any) -> None:
        """Close the wrapped environment; called by `close`."""
        self._games.close()
