"""Checks of environments that other people wrote: of one environment, and of the vector environment of a provider."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
from gymnasium.spaces import Dict, Space
from gymnasium.vector import AutoresetMode, VectorEnv

from gsprune.arrays import Uint8Array
from gsprune.rl.envs.provider import EnvironmentRequest

__all__ = ["CheckedEnv", "check_observations", "check_vector_env"]

_MODE = "autoreset_mode"


class CheckedEnv(gymnasium.Wrapper[Any, Any, Any, Any]):
    """Compares every reset and the first step of an environment with gymnasium's interface and its observation space.

    Vector environments would copy other observations into an array of the space, so floats would silently become 0.
    """

    def __init__(self, env: gymnasium.Env[Any, Any], env_id: str) -> None:
        """Wrap an environment; messages call it `env_id`.

        Raises:
            TypeError: it has no observation space or no action space.
        """
        for name in ("observation_space", "action_space"):
            if not isinstance(getattr(env, name, None), Space):
                raise TypeError(
                    f"`{name}` of {env_id!r} must be a space of gymnasium, got {getattr(env, name, None)}; set it in"
                    " `__init__`"
                )
        super().__init__(env)
        self._env_id = env_id
        self._has_stepped = False

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Begin an episode."""
        result: Any = self.env.reset(seed=seed, options=options)
        self._check("reset", result, "(observation, info)")
        return result[0], result[1]

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        """Act once."""
        result: Any = self.env.step(action)
        if not self._has_stepped:
            self._check("step", result, "(observation, reward, terminated, truncated, info)")
            self._has_stepped = True
        return result  # type: ignore[no-any-return]

    def _check(self, method: str, result: Any, expected: str) -> None:
        if not isinstance(result, tuple) or len(result) != expected.count(",") + 1:
            got = f"a tuple of {len(result)}" if isinstance(result, tuple) else type(result).__name__
            raise TypeError(
                f"`{method}` of {self._env_id!r} must return {expected}, as in gymnasium, got {got}; an environment of"
                " the old gym needs the package shimmy"
            )
        if not _fits(result[0], self.env.observation_space):
            raise ValueError(
                f"`{method}` of {self._env_id!r} must return an observation of its `observation_space`,"
                f" {self.env.observation_space}, got"
                f" {_described(result[0])}; make both of the same dtype and shape"
            )


def check_vector_env(envs: Any, request: EnvironmentRequest) -> None:
    """Check the vector environment that a provider made.

    Raises:
        TypeError: it is no vector environment of gymnasium.
        ValueError: it has another number of environments, or begins episodes in another step.
    """
    made = f"the provider of `env_id` {request.env_id!r}"
    if not isinstance(envs, VectorEnv):
        raise TypeError(f"{made} must make a gymnasium.vector.VectorEnv, got {type(envs).__name__}")
    if getattr(envs, "num_envs", None) != request.num_envs:
        raise ValueError(
            f"{made} must make as many environments as `request.num_envs`, {request.num_envs}, got"
            f" {getattr(envs, 'num_envs', None)}"
        )
    mode = envs.metadata.get(_MODE)
    if mode != AutoresetMode.SAME_STEP:
        raise ValueError(
            f"{made} must make environments that begin an episode in the step that ends the one before: their"
            f" `metadata[{_MODE!r}]` must be AutoresetMode.SAME_STEP, got {mode}; gymnasium's vector environments take"
            f" it as the argument `{_MODE}`"
        )


def check_observations(observations: Any, shape: tuple[int, ...], env_id: str) -> Uint8Array:
    """Check that the first observations of a vector environment are (N, C, H, W) uint8 of this shape, and return them.

    Raises:
        ValueError: they have another dtype or shape.
    """
    if not isinstance(observations, np.ndarray) or observations.dtype != np.uint8 or observations.shape != shape:
        raise ValueError(
            f"the environments of `env_id` {env_id!r} must return observations (N, C, H, W) = {shape} of dtype uint8,"
            f" as their provider describes them, got {_described(observations)}"
        )
    return observations


def _fits(observation: Any, space: Any) -> bool:
    """True if an image has the dtype and the shape of its space. Of a dict only its images are compared."""
    if isinstance(space, Dict):
        images = {name: entry for name, entry in space.items() if entry.dtype == np.uint8}
        return isinstance(observation, dict) and all(_fits(observation.get(name), images[name]) for name in images)
    return isinstance(observation, np.ndarray) and (observation.dtype, observation.shape) == (space.dtype, space.shape)


def _described(observation: Any) -> str:
    """Dtype, shape and range of an observation, or its type."""
    if isinstance(observation, dict):
        return "{" + ", ".join(f"{name}: {_described(value)}" for name, value in observation.items()) + "}"
    if not isinstance(observation, np.ndarray) or observation.size == 0:
        return type(observation).__name__
    return f"{observation.dtype} {observation.shape} from {observation.min():g} to {observation.max():g}"
