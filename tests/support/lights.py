"""An environment and an encoder in a module outside of the package."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
import torch
from gymnasium.spaces import Box, Dict, Discrete, MultiDiscrete
from torch import Tensor, nn

SPACES = {
    "discrete": Discrete(3),
    "several": MultiDiscrete([2, 3]),
    "box": Box(-1, 1, (2,), np.float32),
}


class Robots:
    """Names may be nested: "lights:Robots.Arm"."""

    class Arm(gymnasium.Env[Any, Any]):
        """The picture of a camera in one grey level, among other observations; an episode has twelve steps."""

        observation_space = Dict(camera=Box(0, 255, (3, 36, 40), np.uint8), speed=Box(-1, 1, (2,), np.float32))

        def __init__(self, actions: str = "discrete") -> None:
            self.action_space = SPACES[actions]
            self.count = 0

        def observe(self) -> dict[str, Any]:
            shape = (3, 36, 40)
            return {
                "camera": np.full(shape, self.np_random.integers(256), np.uint8),
                "speed": np.zeros(2, np.float32),
            }

        def reset(
            self, *, seed: int | None = None, options: dict[str, Any] | None = None
        ) -> tuple[Any, dict[str, Any]]:
            super().reset(seed=seed)
            self.count = 0
            return self.observe(), {}

        def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
            assert self.action_space.contains(action), action
            self.count += 1
            return self.observe(), float(np.sum(action)), False, self.count == 12, {}


class Encoder(nn.Module):
    """One convolution and one linear layer."""

    num_features = 32

    def __init__(self, observation_shape: tuple[int, int, int]) -> None:
        super().__init__()
        channels, height, width = observation_shape
        self.conv = nn.Conv2d(channels, 8, 4, stride=4)
        self.linear = nn.Linear(8 * (height // 4) * (width // 4), 32)

    def forward(self, frames: Tensor) -> Tensor:
        return torch.relu(self.linear(torch.relu(self.conv(frames / 255)).flatten(1)))
