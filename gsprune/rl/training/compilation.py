"""torch.compile for a network whose widths change: compiled while the widths are stable, eager in between.

Every new width needs a compilation of 16 to 27 s, and after eight of them dynamo silently stays eager. So functions are
compiled only while widths are stable: before the schedule begins and after its end. Each function is compiled once per
signature and phase, and all functions together at most six times in a run.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

import torch
from torch import Tensor

__all__ = ["StableWidthCompiler"]

P = ParamSpec("P")
R = TypeVar("R")

_LIMIT = 6  # compilations of a run


class StableWidthCompiler:
    """Decides for each call whether a function of the run is compiled or eager. It starts in eager mode.

    Args:
        enabled: False keeps everything eager.
        log: takes a line about every compilation and every return to eager mode.
        backend: as in ``torch.compile``.

    Attributes:
        compilations: number of compilations of the run, including those before it was resumed.
    """

    def __init__(
        self, enabled: bool, log: Callable[[str], None], backend: str | Callable[..., Any] = "inductor"
    ) -> None:
        self.compilations = 0
        self._enabled = enabled
        self._log = log
        self._backend = backend
        self._stable = False
        self._compiled: dict[tuple[str, str], Callable[..., Any]] = {}  # by name and signature

    def wrap(self, name: str, function: Callable[P, R]) -> Callable[P, R]:
        """A version of a function that is compiled while widths are stable.

        Args:
            name: the function's name in the log; unique.
            function: takes tensors. A network in its closure must not change while widths are stable.
        """

        def call(*args: P.args, **kwargs: P.kwargs) -> R:
            if not (self._enabled and self._stable):
                return function(*args, **kwargs)
            key = name, _signature([*args, *kwargs.values()])
            if key not in self._compiled and self.compilations >= _LIMIT:
                self._log(f"{' '.join(key)} stays eager: all {_LIMIT} compilations of this run are used up")
                self._compiled[key] = function
            if key in self._compiled:
                result: R = self._compiled[key](*args, **kwargs)
                return result
            self.compilations += 1
            compiled = torch.compile(function, dynamic=False, fullgraph=True, backend=self._backend)
            start = time.perf_counter()
            result = compiled(*args, **kwargs)
            seconds = time.perf_counter() - start
            self._log(f"compiled {' '.join(key)} in {seconds:.1f} s ({self.compilations} of at most {_LIMIT})")
            self._compiled[key] = compiled
            return result

        return call

    def set_stable(self, stable: bool) -> None:
        """Set whether widths are stable from now on. Call this after a pruning step, before the next forward."""
        if not self._enabled or stable == self._stable:
            return
        self._stable = stable
        self._compiled.clear()
        # Frees the code of the old widths, and resets the count at which dynamo gives up.
        torch.compiler.reset()
        if not stable:
            self._log("widths change from now on: the network runs in eager mode until they are stable")


def _signature(arguments: list[Any]) -> str:
    """Shapes, dtypes and the gradient mode: dynamo compiles again if one of them changes."""
    tensors = [argument for argument in arguments if isinstance(argument, Tensor)]
    shapes = ", ".join(f"{str(tensor.dtype).removeprefix('torch.')}{list(tensor.shape)}" for tensor in tensors)
    return f"({shapes}){' with gradients' if torch.is_grad_enabled() else ''}"
