"""Objects by name: "package.module:name" in options. Python code can also register an object of this process."""

from __future__ import annotations

import importlib
import inspect
import os
import sys
from collections.abc import Callable
from typing import Any

from torch import nn

__all__ = ["imported_module", "named_factory", "named_object", "object_name"]

_registered: dict[str, object] = {}


def object_name(value: Any) -> str:
    """Register an object and return its name for `named_object`. Other processes can only import it by that name."""
    name = f"{value.__module__}:{getattr(value, '__qualname__', type(value).__qualname__)}"
    if "<" in name and _registered.get(name) is not value:  # nested functions share a name
        name = f"{name}#{len(_registered)}"
    _registered[name] = value
    return name


def named_object(name: str, option: str) -> Any:
    """The object of a name "package.module:name"; the module may be in the working directory.

    Raises:
        ValueError: the module cannot be imported or has no such object; the message names the option.
    """
    if name in _registered:
        return _registered[name]
    module_name, _, attribute = name.partition(":")
    module = imported_module(module_name, option)
    value: Any = module
    for part in attribute.split("."):
        if not hasattr(value, part):
            raise ValueError(f"`{option}` is {name!r}, but module {module_name!r} has no {attribute!r}")
        value = getattr(value, part)
    return value


def named_factory(name: str, option: str, arguments: str) -> Callable[..., Any]:
    """The function of a name that makes a network.

    Args:
        name: as for `named_object`.
        option: the option with the name, for messages.
        arguments: names of the arguments that the function takes.

    Raises:
        ValueError: as for `named_object`.
        TypeError: the object is no function of these arguments.
    """
    factory = named_object(name, option)
    expected = f"`{option}` {name!r} must be a callable({arguments}) -> torch.nn.Module"
    if isinstance(factory, nn.Module):
        raise TypeError(f"{expected}, got a network; name its class, or a function that makes it")
    if not callable(factory):
        raise TypeError(f"{expected}, got {type(factory).__name__}")
    try:
        inspect.signature(factory).bind(*arguments.split(", "))
    except TypeError as error:
        raise TypeError(f"{expected}, but its arguments differ: {error}") from error
    except ValueError:  # a callable without a signature, of an extension module
        pass
    made: Callable[..., Any] = factory
    return made


def imported_module(name: str, option: str) -> Any:
    """The module of that name.

    Raises:
        ValueError: it cannot be found, or is no Python.
    """
    if os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is not None and (name == error.name or name.startswith(f"{error.name}.")):
            raise ValueError(
                f"`{option}` names module {name!r}, which cannot be found; run from the folder that contains it, or add"
                " that folder to PYTHONPATH"
            ) from error
        raise
    except SyntaxError as error:
        raise ValueError(f"`{option}` names module {name!r}, which cannot be imported: {error}") from error
