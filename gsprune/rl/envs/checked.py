"""Checks of environments from other packages: of one environment, and of the vector environment of a provider."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import gymnasium
import numpy as np
from gymnasium.spaces import Dict, Space
from gymnasium.vector import AutoresetMode, VectorEnv

from gsprune.arrays import AnyArray, BoolArray, Uint8Array
from gsprune.errors import EnvironmentFailedError, GspruneError, failure_text, is_out_of_memory
from gsprune.rl.envs.provider import EnvironmentRequest

__all__ = ["CheckedEnv", "Step", "check_observations", "check_vector_env", "checked_step"]

_MODE = "autoreset_mode"


class CheckedEnv(gymnasium.Wrapper[Any, Any, Any, Any]):
    """Checks every reset and step of an environment against gymnasium's interface and its observation space.

    Vector environments copy observations into an array of the space's dtype, so floats would silently become 0.
    Infos are dropped: nothing reads them, and gymnasium cannot join infos whose types differ between environments.
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

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Begin an episode.

        Raises:
            TypeError: the result is no (observation, info).
            ValueError: the observation is not of its space.
            EnvironmentFailedError: the environment raised an exception.
        """
        try:
            result: Any = self.env.reset(seed=seed, options=options)
        except Exception as error:
            raise self._failure("reset", error) from error
        if not isinstance(result, tuple) or len(result) != 2:
            raise self._wrong_result("reset", result, "(observation, info)")
        self._check_observation("reset", result[0])
        return result[0], {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """Act once.

        Raises:
            TypeError: the result is no (observation, reward, terminated, truncated, info), or the reward no number.
            ValueError: the observation is not of its space, or the reward is NaN or infinite.
            EnvironmentFailedError: the environment raised an exception.
        """
        try:
            result: Any = self.env.step(action)
        except Exception as error:
            raise self._failure("step", error) from error
        if not isinstance(result, tuple) or len(result) != 5:
            raise self._wrong_result("step", result, "(observation, reward, terminated, truncated, info)")
        observation, reward, terminated, truncated, _ = result
        self._check_observation("step", observation)
        return observation, self._number(reward), bool(terminated), bool(truncated), {}

    def _check_observation(self, method: str, observation: Any) -> None:
        if not _fits(observation, self.env.observation_space):
            raise ValueError(
                f"`{method}` of {self._env_id!r} must return an observation of its `observation_space`,"
                f" {self.env.observation_space}, got {_described(observation)}; make both of the same dtype and shape"
            )

    def _number(self, reward: Any) -> float:
        """The reward as a number; arrays of one element are numbers, too."""
        try:
            number = float(reward.item() if isinstance(reward, np.ndarray) else reward)
        except (TypeError, ValueError) as error:
            raise TypeError(f"`step` of {self._env_id!r} must return a number as reward, got {reward!r}") from error
        if not math.isfinite(number):
            raise ValueError(
                f"`step` of {self._env_id!r} must return a finite reward, got {number}: one such reward would make all"
                " weights NaN"
            )
        return number

    def _wrong_result(self, method: str, result: Any, expected: str) -> TypeError:
        got = f"a tuple of {len(result)}" if isinstance(result, tuple) else type(result).__name__
        return TypeError(
            f"`{method}` of {self._env_id!r} must return {expected}, as in gymnasium, got {got}; an environment of"
            " the old gym needs the package shimmy"
        )

    def _failure(self, method: str, error: Exception) -> EnvironmentFailedError:
        # Only a text reaches the trainer from the process of an environment, so the text names the place.
        return EnvironmentFailedError(f"`{method}` of {self._env_id!r} raised {failure_text(error)}")


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


class Step(NamedTuple):
    """The result of a step of N environments.

    Attributes:
        observations: (N, C, H, W) uint8.
        rewards: (N,) finite numbers.
        terminated: (N,) where the game ended.
        truncated: (N,) where a limit ended the episode.
        infos: of episodes that ended; see `EnvironmentProvider.make`.
    """

    observations: Uint8Array
    rewards: AnyArray
    terminated: BoolArray
    truncated: BoolArray
    infos: Mapping[str, Any]


def checked_step(envs: Any, actions: AnyArray, previous: Uint8Array, env_id: str) -> Step:
    """Act once in all environments, and check the result.

    Args:
        envs: the vector environment.
        actions: (N, ...).
        previous: (N, C, H, W), the observations before the step.
        env_id: for messages.

    Raises:
        EnvironmentFailedError: the environments raised an exception.
        ValueError: observations, rewards, ends or infos are of another kind; or the array of the previous observations
            was overwritten.
    """
    try:
        observations, rewards, terminated, truncated, infos = envs.step(actions)
    except (GspruneError, ValueError, TypeError):
        raise
    except Exception as error:
        if is_out_of_memory(error):
            raise
        raise EnvironmentFailedError(f"`step` of {env_id!r} raised {failure_text(error)}") from error
    check_observations(observations, previous.shape, env_id)
    if np.may_share_memory(observations, previous):
        raise ValueError(
            f"the environments of `env_id` {env_id!r} have overwritten the observations of the step before; return a"
            " copy from every step"
        )
    numbers = _column("rewards", rewards, len(previous), env_id)
    if numbers.dtype.kind not in "fiub" or not np.isfinite(numbers).all():
        raise ValueError(
            f"the environments of `env_id` {env_id!r} must return finite numbers as rewards, got {numbers}"
        )
    if "episode" in infos and "_episode" not in infos:
        raise ValueError(
            f"the environments of `env_id` {env_id!r} return infos with 'episode' but without '_episode', the mask of"
            " the episodes that ended; gsprune.rl.envs.episodes.EpisodeSums makes both"
        )
    ended = _column("terminated", terminated, len(previous), env_id).astype(np.bool_, copy=False)
    cut = _column("truncated", truncated, len(previous), env_id).astype(np.bool_, copy=False)
    return Step(observations, numbers, ended, cut, infos)


def _column(name: str, values: Any, num_envs: int, env_id: str) -> AnyArray:
    """Values of all environments as an array (N,)."""
    array = np.asarray(values)
    if array.shape != (num_envs,):
        raise ValueError(
            f"the environments of `env_id` {env_id!r} must return `{name}` of shape ({num_envs},), got {array.shape}"
        )
    return array


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
