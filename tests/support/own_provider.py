"""A provider of one environment, as another package would write it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from gymnasium.spaces import Discrete

from gsprune.rl.envs.provider import EnvironmentDescription, EnvironmentRequest


class OwnProvider:
    """Has one id, three actions, and vector environments from a function of the request."""

    def __init__(self, env_id: str, shape: tuple[int, int, int], make: Callable[[EnvironmentRequest], Any]) -> None:
        self.name, self.env_id, self.shape, self.make = env_id.capitalize(), env_id, shape, make

    def ids(self) -> list[str]:
        return [self.env_id]

    def accepts(self, env_id: str) -> bool:
        return env_id == self.env_id

    def require(self) -> None:
        pass

    def score_range(self, request: EnvironmentRequest) -> None:
        del request

    def describe(self, request: EnvironmentRequest) -> EnvironmentDescription:
        del request
        return EnvironmentDescription(self.shape, Discrete(3))
