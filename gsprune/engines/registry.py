"""The engines by name."""

from __future__ import annotations

import json
from collections.abc import Sequence

from gsprune.checks import check_choice, check_object
from gsprune.engines.compiled import Compiled
from gsprune.engines.eager import Eager
from gsprune.engines.engine import Engine
from gsprune.engines.onnxruntime import OnnxRuntime
from gsprune.engines.onnxruntime_int8 import OnnxRuntimeInt8
from gsprune.engines.portable_call import PortableCall
from gsprune.engines.timing import Forward, torch_threads

__all__ = ["ENGINES", "get_engine", "load", "register_engine"]

ENGINES: dict[str, Engine] = {
    "eager": Eager(),
    "compiled": Compiled(),
    "onnxruntime": OnnxRuntime(),
    "onnxruntime-int8": OnnxRuntimeInt8(),
}


def register_engine(name: str, engine: Engine) -> None:
    """Add an engine, or replace one.

    Args:
        name: the name for `LatencyBudget` and the command line.
        engine: the engine.

    Raises:
        TypeError: `name` is no string, or `engine` is no object with the attributes of `Engine`.
    """
    if not isinstance(name, str):
        raise TypeError(f"`name` must be a string, got {name!r}")
    check_object("engine", engine)
    if not callable(getattr(engine, "load", None)) or getattr(type(engine), "load", None) is Engine.load:
        raise TypeError(f"`engine` must have a method `load(call, threads)`, got {engine!r}")
    if not isinstance(getattr(engine, "package", None), str):
        raise TypeError(
            f"`engine` must have an attribute `package`, the name of the package that runs networks, got {engine!r}"
        )
    try:
        json.dumps(dict(engine.settings))
    except (AttributeError, TypeError, ValueError) as error:
        raise TypeError(
            f"`settings` of `engine` must be a dictionary of JSON values, got {getattr(engine, 'settings', None)!r}"
        ) from error
    ENGINES[name] = engine


def get_engine(name: str) -> Engine:
    """The engine of that name.

    Raises:
        ValueError: there is none.
    """
    return ENGINES[check_choice("engine", name, ENGINES)]


def load(name: str, calls: Sequence[PortableCall], threads: int = 1) -> list[Forward]:
    """Load networks into an engine after unloading all others; `threads` are those of one forward.

    Raises:
        ValueError: there is no such engine.
        TypeError: the engine returns no function.
        MissingExtraError: the engine is not installed.
    """
    engine = get_engine(name)
    engine.unload()
    with torch_threads(threads):
        forwards = [engine.load(call, threads) for call in calls]
    for forward in forwards:
        if not callable(forward):
            raise TypeError(
                f"`load` of engine {name!r} must return a function that runs the network, got {type(forward).__name__}"
            )
    return forwards
