"""The state of Procgen environments, which can be cut into parts and joined."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["EnvState"]


@dataclass(frozen=True)
class EnvState:
    """A state from which a `ProcgenVectorEnv` continues exactly.

    Attributes:
        config: the environment's configuration as JSON values.
        arrays: "games" (uint8, the concatenated states of the games), "ends" (num_envs, int64, the end of each in
            "games"), "returns" (num_envs, float64) and "lengths" (num_envs, int64) of the running episodes.
    """

    config: dict[str, Any]
    arrays: dict[str, npt.NDArray[Any]]

    def part(self, envs: range) -> EnvState:
        """The state of some neighbouring environments; `envs` are their numbers, ascending by one, at least one."""
        if len(envs) == self.config["num_envs"]:
            return self
        ends = self.arrays["ends"]
        begin = int(ends[envs[0] - 1]) if envs[0] > 0 else 0
        chosen = slice(envs[0], envs[-1] + 1)
        arrays = {
            "games": self.arrays["games"][begin : int(ends[envs[-1]])],
            "ends": ends[chosen] - begin,
            "returns": self.arrays["returns"][chosen],
            "lengths": self.arrays["lengths"][chosen],
        }
        return EnvState({**self.config, "num_envs": len(envs)}, arrays)

    @staticmethod
    def joined(states: Sequence[EnvState]) -> EnvState:
        """One state of all environments of `states`, whose configurations differ only in `num_envs`."""
        if len(states) == 1:
            return states[0]
        begins = np.cumsum([0, *(len(state.arrays["games"]) for state in states[:-1])])
        arrays = {
            name: np.concatenate([state.arrays[name] for state in states]) for name in ("games", "returns", "lengths")
        }
        ends = [state.arrays["ends"] + begin for state, begin in zip(states, begins, strict=True)]
        config = {**states[0].config, "num_envs": sum(state.config["num_envs"] for state in states)}
        return EnvState(config, {**arrays, "ends": np.concatenate(ends)})
