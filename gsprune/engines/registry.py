"""The engines by name."""

from __future__ import annotations

from collections.abc import Sequence

from gsprune.checks import check_choice
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
    """Add an engine, or replace one, by its name for `LatencyBudget` and the command line."""
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
        MissingExtraError: the engine is not installed.
    """
    engine = get_engine(name)
    engine.unload()
    with torch_threads(threads):
        return [engine.load(call, threads) for call in calls]
