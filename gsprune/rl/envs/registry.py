"""The registry of environment providers."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from gsprune.checks import check_object, suggestion
from gsprune.rl.envs.checked import check_vector_env
from gsprune.rl.envs.provider import EnvironmentDescription, EnvironmentProvider, EnvironmentRequest, Environments
from gsprune.rl.evaluation.scores import ScoreRange

__all__ = ["describe", "make_environments", "provider_of", "register_provider", "score_range_of"]

_registered: list[EnvironmentProvider] = []
_METHODS = ("ids", "accepts", "require", "score_range", "describe", "make")


def register_provider(provider: EnvironmentProvider) -> None:
    """Add a provider. It takes precedence over earlier ones.

    Raises:
        TypeError: `provider` is a class, or lacks a part of `EnvironmentProvider`.
    """
    check_object("provider", provider)
    missing = [name for name in _METHODS if not callable(getattr(provider, name, None))]
    if missing or not isinstance(getattr(provider, "name", None), str):
        raise TypeError(
            f"`provider` must have a string `name` and the methods {', '.join(_METHODS)}, but {type(provider).__name__}"
            f" has no {missing[0] if missing else 'name'}"
        )
    _registered.insert(0, provider)


def provider_of(env_id: str) -> EnvironmentProvider:
    """The provider of an environment.

    Raises:
        ValueError: no provider has the id; the message suggests the nearest id.
    """
    for provider in _providers():
        if provider.accepts(env_id):
            return provider
    raise ValueError(f"`env_id`: there is no game {env_id!r}{_way_out(env_id)}")


def describe(request: EnvironmentRequest) -> EnvironmentDescription:
    """Describe the environment of a request; see `EnvironmentProvider.describe`.

    Raises:
        TypeError: the provider returned no description of images.
    """
    description: Any = provider_of(request.env_id).describe(request)
    if not isinstance(description, EnvironmentDescription) or len(description.observation_shape) != 3:
        raise TypeError(
            f"the provider of `env_id` {request.env_id!r} must describe it by an EnvironmentDescription with an"
            f" `observation_shape` (C, H, W), got {description!r}"
        )
    return description


def make_environments(request: EnvironmentRequest) -> Environments:
    """Make the environments of a request, and check them; see `EnvironmentProvider.make`.

    Raises:
        TypeError: the provider made no vector environment.
        ValueError: the provider made another number of environments, or a mode of resets other than SAME_STEP.
    """
    envs = provider_of(request.env_id).make(request)
    check_vector_env(envs, request)
    return envs


def score_range_of(request: EnvironmentRequest) -> ScoreRange | None:
    """The returns that normalised scores map to 0 and 1; None without a published scale, or without a provider."""
    try:
        provider = provider_of(request.env_id)
    except ValueError:
        return None
    return provider.score_range(request)


def _providers() -> Iterator[EnvironmentProvider]:
    """All providers, imported one after another."""
    yield from _registered
    from gsprune.rl.envs.procgen import ProcgenProvider

    yield ProcgenProvider()
    from gsprune.rl.envs.atari import AtariProvider

    yield AtariProvider()
    from gsprune.rl.envs.gymnasium import GymnasiumProvider

    yield GymnasiumProvider()


def _way_out(env_id: str) -> str:
    ids = [known for provider in _providers() for known in provider.ids()]
    longer = sorted((known for known in ids if env_id in known), key=len)  # "Pong" is far from "ALE/Pong-v5"
    near = suggestion(env_id, ids)
    if near or longer:
        return near or f"; did you mean {longer[0]!r}?"
    listed = "; ".join(f"{provider.name} has {_some(list(provider.ids()))}" for provider in _providers())
    return f"; {listed}"


def _some(ids: list[str]) -> str:
    return ", ".join(ids[:16]) + (", ..." if len(ids) > 16 else "")
