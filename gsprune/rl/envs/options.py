"""Parses the options of a provider from text ("size=84,stack=4"), and refuses a difficulty where there is none."""

from __future__ import annotations

from dataclasses import fields
from typing import Any, TypeVar, get_type_hints

from gsprune.checks import suggestion
from gsprune.rl.envs.provider import EnvironmentRequest

__all__ = ["parsed_options", "refuse_difficulty"]

Options = TypeVar("Options")

_FLAGS = {"true": True, "false": False}


def parsed_options(text: str, options_type: type[Options]) -> Options:
    """The options of a provider.

    Args:
        text: "name=value,name=value"; empty for the defaults.
        options_type: a dataclass whose fields are of type bool, int, float or str.

    Raises:
        ValueError: an unknown option or a value of another type.
    """
    hints = get_type_hints(options_type)
    names = [field.name for field in fields(options_type)]  # type: ignore[arg-type]  # typing has no bound for dataclasses
    values: dict[str, Any] = {}
    for part in filter(None, (part.strip() for part in text.split(","))):
        name, equals, value = (word.strip() for word in part.partition("="))
        if not equals or name not in names:
            listed = f"the options are {', '.join(f'{known}=...' for known in names)}" if names else "it has no options"
            way_out = suggestion(name, names) or f"; {listed}"
            raise ValueError(f"`env_options` has {part!r}, which the environment does not know{way_out}")
        values[name] = _converted(name, value, hints[name])
    return options_type(**values)


def refuse_difficulty(request: EnvironmentRequest) -> None:
    """Refuse a difficulty other than the default, for environments without difficulties.

    Raises:
        ValueError: the request has another difficulty.
    """
    if request.difficulty != "easy":
        raise ValueError(
            f"`distribution_mode` is {request.difficulty!r}, but {request.env_id!r} has no levels of difficulty; leave"
            " the option out, or choose a Procgen game"
        )


def _converted(name: str, value: str, wanted: type) -> Any:
    if wanted is bool:
        if value.lower() in _FLAGS:
            return _FLAGS[value.lower()]
        raise ValueError(f"`env_options`: {name} must be true or false, got {value!r}")
    try:
        return wanted(value)
    except ValueError as error:
        kind = "a whole number" if wanted is int else "a number"
        raise ValueError(f"`env_options`: {name} must be {kind}, got {value!r}") from error
