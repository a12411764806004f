"""Objects by name: "package.module:name" in options. Python code can also register an object of this process."""

from __future__ import annotations

import importlib
import os
import sys
from typing import Any

__all__ = ["imported_module", "named_object", "object_name"]

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


def imported_module(name: str, option: str) -> Any:
    """The module of that name.

    Raises:
        ValueError: it cannot be found.
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
