"""The registry of training algorithms."""

from __future__ import annotations

import importlib
from dataclasses import replace

from gsprune.checks import suggestion
from gsprune.rl.algorithms.algorithm import Algorithm
from gsprune.rl.objects import named_object
from gsprune.rl.training.config import TrainConfig

__all__ = ["algorithm_for", "algorithm_names", "algorithm_of", "register_algorithm"]

# Name -> module and attribute. Algorithms are imported when they are used.
_BUILT_IN = {
    "ppo": ("gsprune.rl.algorithms.ppo.algorithm", "PPO"),
    "dqn": ("gsprune.rl.algorithms.dqn.algorithm", "DQN"),
}
_registered: dict[str, Algorithm] = {}


def register_algorithm(algorithm: Algorithm) -> None:
    """Add an algorithm under its name.

    Raises:
        ValueError: another algorithm has the name.
    """
    if algorithm.name in _BUILT_IN or _registered.get(algorithm.name, algorithm) is not algorithm:
        raise ValueError(f"there is an algorithm {algorithm.name!r} already; choose another name")
    _registered[algorithm.name] = algorithm


def algorithm_names() -> tuple[str, ...]:
    """The names of all algorithms."""
    return (*_BUILT_IN, *_registered)


def algorithm_for(config: TrainConfig) -> Algorithm:
    """The algorithm of a configuration.

    Raises:
        TypeError: no algorithm has a configuration of this class.
    """
    fitting = [found for found in map(algorithm_of, algorithm_names()) if isinstance(config, found.config)]
    if fitting:
        return max(fitting, key=lambda algorithm: len(algorithm.config.__mro__))  # the most derived class
    raise TypeError(
        f"`config` must be of the class of an algorithm ({', '.join(algorithm_names())}), got {type(config).__name__};"
        " add your own with register_algorithm"
    )


def algorithm_of(name: str) -> Algorithm:
    """The algorithm of that name.

    Args:
        name: a built-in or registered algorithm, or "package.module:NAME" for an `Algorithm` of another package,
            which becomes its name.

    Raises:
        ValueError: the name is unknown; the message suggests the nearest one.
        TypeError: the object of that name is no `Algorithm`.
    """
    if name in _registered:
        return _registered[name]
    if name in _BUILT_IN:
        module, attribute = _BUILT_IN[name]
        found: Algorithm = getattr(importlib.import_module(module), attribute)
        return found
    if ":" in name:
        named = named_object(name, "algorithm")
        if not isinstance(named, Algorithm):
            raise TypeError(f"{name!r} must be a gsprune Algorithm, got {type(named).__name__}")
        return replace(named, name=name)
    raise ValueError(
        f"`algorithm` must be one of {', '.join(algorithm_names())}, or package.module:NAME, got {name!r}"
        f"{suggestion(name, algorithm_names())}"
    )
