"""Environments of gymnasium, by a registered id or by a factory of your own, whose observations are images.

The observation of an environment is a uint8 image, or a dict with one. It becomes (C, H, W): options resize it, make it
grey and stack the last ones. Other options go to the environment's constructor.
"""

from __future__ import annotations

import ast
import inspect
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from functools import lru_cache, partial
from typing import Any, cast

import gymnasium
import numpy as np
from gymnasium.spaces import Box, Dict
from gymnasium.vector import AsyncVectorEnv, AutoresetMode, SyncVectorEnv, VectorEnv
from gymnasium.wrappers import FrameStackObservation, GrayscaleObservation, ResizeObservation, TransformObservation

from gsprune.arrays import AnyArray, BoolArray, Float32Array, Uint8Array
from gsprune.errors import EnvironmentFailedError, MissingExtraError, place_in_user_code
from gsprune.rl.envs.checked import CheckedEnv
from gsprune.rl.envs.options import parsed_options, refuse_difficulty
from gsprune.rl.envs.provider import EnvironmentDescription, EnvironmentRequest
from gsprune.rl.envs.wrapped import WrappedGames
from gsprune.rl.objects import imported_module, named_object

__all__ = ["GymnasiumGames", "GymnasiumOptions", "GymnasiumProvider"]

_ID = re.compile(r"[\w./-]+-v\d+")
_CHANNELS = (1, 3, 4)  # usual numbers of an image whose channels come last


@dataclass(frozen=True)
class GymnasiumOptions:
    """Options of the observations, and how the environments step.

    Attributes:
        size: height and width in pixels to which images are resized; 0 keeps them.
        grey: make images grey.
        stack: number of images in one observation, the newest last.
        key: entry of a dict observation; empty for its only image.
        asynchronous: step every environment in a process of its own.
    """

    size: int = 0
    grey: bool = False
    stack: int = 1
    key: str = ""
    asynchronous: bool = True

    def __post_init__(self) -> None:
        if self.size < 0 or self.stack < 1:
            raise ValueError(
                "`env_options`: size must be at least 0 and stack at least 1, got"
                f" size={self.size} and stack={self.stack}"
            )


class GymnasiumGames(WrappedGames):
    """`num_envs` copies of an environment of gymnasium, with the infos of episodes that ended."""

    def __init__(self, make_one: Callable[[], gymnasium.Env[Any, Any]], request: EnvironmentRequest) -> None:
        """Create the environments; `make_one` makes one, with observations (C, H, W) uint8."""
        options, _ = _options(request)
        vector: Any = AsyncVectorEnv if options.asynchronous and request.num_envs > 1 else SyncVectorEnv
        games = vector([make_one] * request.num_envs, autoreset_mode=AutoresetMode.SAME_STEP)
        super().__init__(games, request)

    def step(self, actions: AnyArray) -> tuple[Uint8Array, Float32Array, BoolArray, BoolArray, dict[str, Any]]:
        """Act once in every environment; see `gsprune.rl.envs.provider.EnvironmentProvider.make`."""
        frames, rewards, terminated, truncated, infos = self._games.step(actions)
        infos = self._infos_of_step(infos, rewards, np.logical_or(terminated, truncated))
        return frames, np.asarray(rewards, np.float32), terminated, truncated, infos


class GymnasiumProvider:
    """Registered ids, ``module:Env-v0``, and ``package.module:factory``."""

    name = "Gymnasium"

    def ids(self) -> Sequence[str]:
        """The registered ids, without those of Atari, which `AtariProvider` has."""
        return [env_id for env_id, spec in gymnasium.registry.items() if "ale_py" not in str(spec.entry_point)]

    def accepts(self, env_id: str) -> bool:
        """True for a registered id, and for the name of an object in a module."""
        return ":" in env_id or env_id in gymnasium.registry

    def require(self) -> None:
        """Do nothing: `describe` finds missing packages."""

    def score_range(self, request: EnvironmentRequest) -> None:
        """None: no scale is published."""

    def describe(self, request: EnvironmentRequest) -> EnvironmentDescription:
        """Make one environment and describe it.

        Raises:
            ValueError: no such environment, a bad option, a difficulty, or no image in its observations.
            TypeError: a factory returns something else than an environment.
            MissingExtraError: a package of the environment is missing.
        """
        refuse_difficulty(request)
        return _described(request.env_id, request.options)

    def make(self, request: EnvironmentRequest) -> GymnasiumGames:
        """Make the environments. Those of trainings and evaluations are equal."""
        _described(request.env_id, request.options)
        return GymnasiumGames(_maker(request), request)


@lru_cache(maxsize=64)
def _described(env_id: str, options: str) -> EnvironmentDescription:
    request = EnvironmentRequest(env_id, options=options)
    own, arguments = _options(request)
    env = _maker(request)()
    try:
        # `CheckedEnv` finds wrong results before a training begins.
        env.reset()
        env.step(env.action_space.sample())
        channels, height, width = cast(tuple[int, int, int], env.observation_space.shape)
        return EnvironmentDescription(
            observation_shape=(channels, height, width),
            action_space=env.action_space,
            stack=own.stack,
            layout="channels first; of a stack the newest image last",
            play={
                "package": "gymnasium",
                "id": env_id,
                "arguments": arguments,
                "key": own.key or _image_key(env),
                "size": own.size,
                "grey": own.grey,
                "stack": own.stack,
            },
        )
    finally:
        env.close()


def _maker(request: EnvironmentRequest) -> Callable[[], gymnasium.Env[Any, Any]]:
    """A function that makes one environment; it can be sent to another process."""
    options, arguments = _options(request)
    module, colon, rest = request.env_id.partition(":")
    if not colon or _ID.fullmatch(rest):
        if colon:
            imported_module(module, "env_id")
        return partial(_image_env, partial(_registered_env, request.env_id, arguments), request.env_id, options)
    factory = named_object(request.env_id, "env_id")
    if not callable(factory):
        raise TypeError(
            f"`env_id` {request.env_id!r} must be a callable that returns a gymnasium.Env, got {type(factory).__name__}"
        )
    try:
        inspect.signature(factory).bind(**arguments)
    except TypeError as error:
        raise ValueError(f"`env_options`: {request.env_id} does not take {arguments}: {error}") from error
    return partial(_image_env, partial(factory, **arguments), request.env_id, options)


def _registered_env(env_id: str, arguments: dict[str, Any]) -> gymnasium.Env[Any, Any]:
    """An environment of a registered id."""
    try:
        return gymnasium.make(env_id, disable_env_checker=True, **arguments)
    except gymnasium.error.DependencyNotInstalled as error:
        if "box2d" in str(gymnasium.spec(env_id).entry_point):
            raise MissingExtraError("Box2D", "box2d") from error
        raise ValueError(f"`env_id`: {env_id} needs a package that is not installed: {error}") from error
    except gymnasium.error.Error as error:
        raise ValueError(f"`env_id`: gymnasium cannot make {env_id!r}: {error}") from error
    except TypeError as error:
        origin = error.__cause__ or error.__context__ or error  # gymnasium raises another TypeError in its place
        place = place_in_user_code(origin)
        if place:  # raised inside of the environment, which has taken its arguments
            raise EnvironmentFailedError(f"`__init__` of {env_id!r} raised TypeError: {origin}{place}") from error
        raise ValueError(f"`env_options`: {env_id} does not take {arguments}: {error}") from error


def _options(request: EnvironmentRequest) -> tuple[GymnasiumOptions, dict[str, Any]]:
    """The options of the observations, and the arguments of the environment."""
    own = {field.name for field in fields(GymnasiumOptions)}
    parts = [part.strip() for part in request.options.split(",") if part.strip()]
    arguments = {}
    for part in parts:
        name, equals, value = (word.strip() for word in part.partition("="))
        if not equals:
            raise ValueError(f"`env_options` must be name=value,name=value, got {part!r}")
        if name not in own:
            arguments[name] = _literal(value)
    mine = ",".join(part for part in parts if part.partition("=")[0].strip() in own)
    return parsed_options(mine, GymnasiumOptions), arguments


def _literal(text: str) -> Any:
    """A number, true, false, or the text itself."""
    if text.lower() in ("true", "false"):
        return text.lower() == "true"
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text


def _image_env(
    make: Callable[[], gymnasium.Env[Any, Any]], env_id: str, options: GymnasiumOptions
) -> gymnasium.Env[Any, Any]:
    """One environment with observations (C, H, W) uint8."""
    env = make()
    if not isinstance(env, gymnasium.Env):
        raise TypeError(_not_one_env(env, env_id))
    env = _channels_last(_with_key(CheckedEnv(env, env_id), env_id, options.key), env_id)
    if options.size:
        env = _channels_last(_resized(env, options.size), env_id)  # OpenCV drops a single channel
    if options.grey and cast(Any, env.observation_space.shape)[2] == 3:
        env = GrayscaleObservation(env, keep_dim=True)
    height, width, channels = cast(tuple[int, int, int], env.observation_space.shape)
    shape = (options.stack * channels, height, width)
    if options.stack > 1:
        env = FrameStackObservation(env, options.stack)
    return TransformObservation(env, _channels_first, Box(0, 255, shape, np.uint8))


def _not_one_env(made: Any, env_id: str) -> str:
    """The message for a factory that returns something else than one environment."""
    way_out = ""
    if isinstance(made, VectorEnv):
        way_out = (
            "; the trainer makes `num_envs` of it. A vector environment needs a provider, see"
            " docs/extending/environment.md"
        )
    return f"`env_id` {env_id!r} must return one gymnasium.Env, got {type(made)}{way_out}"


def _resized(env: gymnasium.Env[Any, Any], size: int) -> gymnasium.Env[Any, Any]:
    try:
        return ResizeObservation(env, (size, size))
    except gymnasium.error.DependencyNotInstalled as error:
        raise MissingExtraError("opencv-python-headless", "box2d") from error


def _with_key(env: gymnasium.Env[Any, Any], env_id: str, key: str) -> gymnasium.Env[Any, Any]:
    """The image of a dict observation."""
    space = env.observation_space
    if not isinstance(space, Dict):
        return env
    images = [name for name, entry in space.items() if _is_image(entry)]
    if not key and not images:
        raise ValueError(
            f"`env_id` {env_id!r} has no uint8 image among its observations ({', '.join(space.keys())});"
            " gymnasium.wrappers.TransformObservation makes one, also from a dict within the dict"
        )
    if not key and len(images) != 1:
        raise ValueError(
            f"`env_id` {env_id!r} has {len(images)} images among its observations ({', '.join(space.keys())}); choose"
            " one with --env-options key=NAME"
        )
    chosen = key or images[0]
    if chosen not in space.keys():  # noqa: SIM118 - a Dict space is no mapping for type checkers
        raise ValueError(f"`env_options`: key must be one of {', '.join(space.keys())}, got {chosen!r}")
    return TransformObservation(env, lambda observation: observation[chosen], space[chosen])


def _image_key(env: gymnasium.Env[Any, Any]) -> str:
    """The key of the image in a dict observation; empty for other observations."""
    while isinstance(env, gymnasium.Wrapper) and not isinstance(env.observation_space, Dict):
        env = env.env
    space = env.observation_space
    return next((name for name, entry in space.items() if _is_image(entry)), "") if isinstance(space, Dict) else ""


def _channels_last(env: gymnasium.Env[Any, Any], env_id: str) -> gymnasium.Env[Any, Any]:
    """An environment whose images are (H, W, C)."""
    space = env.observation_space
    if not _is_image(space):
        raise ValueError(
            f"`env_id` {env_id!r} has observations {space}, but the networks need uint8 images (H, W, C), (C, H, W) or"
            " (H, W); gymnasium.wrappers.AddRenderObservation turns other observations into images, and"
            " TransformObservation converts images of another type"
        )
    shape = cast(tuple[int, ...], space.shape)
    if len(shape) == 2:
        return TransformObservation(env, lambda image: image[..., None], Box(0, 255, (*shape, 1), np.uint8))
    if shape[2] in _CHANNELS or shape[2] < shape[0]:  # for unusual numbers of channels, the shorter axis has them
        return env
    return TransformObservation(
        env, lambda image: np.moveaxis(image, 0, -1), Box(0, 255, (*shape[1:], shape[0]), np.uint8)
    )


def _is_image(space: Any) -> bool:
    return isinstance(space, Box) and space.dtype == np.uint8 and len(space.shape) in (2, 3)


def _channels_first(images: AnyArray) -> Uint8Array:
    """(H, W, C) or (stack, H, W, C) -> (stack * C, H, W)."""
    stacked = images if images.ndim == 4 else images[None]
    stack, height, width, channels = stacked.shape
    return np.ascontiguousarray(stacked.transpose(0, 3, 1, 2)).reshape(stack * channels, height, width)
