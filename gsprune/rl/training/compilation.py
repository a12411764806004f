"""torch.compile for a network whose widths change: compiled while the widths are stable, eager in between.

Every new width needs a compilation of 16 to 27 s, and after eight of them dynamo silently stays eager. So functions are
compiled only while widths are stable: before the schedule begins and after its end. Each function is compiled once per
signature and phase, and all functions together at most `limit` times in a run.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, Generic, ParamSpec, TypeVar

import torch
from torch import Tensor

__all__ = ["StableWidthCompiler", "StableWidthFunction"]

P = ParamSpec("P")
R = TypeVar("R")


class StableWidthCompiler:
    """Decides for each call whether a function of the run is compiled or eager.

    Attributes:
        compilations: number of compilations of the run, including those before it was resumed.
    """

    def __init__(
        self,
        enabled: bool,
        log: Callable[[str], None],
        limit: int = 6,
        backend: str | Callable[..., Any] = "inductor",
    ) -> None:
        """Start in eager mode, until `set_stable(True)`.

        Args:
            enabled: False keeps everything eager.
            log: takes a line about every compilation and every return to eager mode.
            limit: the most compilations in the whole run, >= 1.
            backend: as in ``torch.compile``.

        Raises:
            ValueError: `limit` < 1.
        """
        if limit < 1:
            raise ValueError(f"`limit` must be at least 1, got {limit}; to compile nothing, switch the option off")
        self.compilations = 0
        self._enabled = enabled
        self._log = log
        self._limit = limit
        self._backend = backend
        self._stable = False
        self._functions: list[StableWidthFunction[Any, Any]] = []

    @property
    def active(self) -> bool:
        """True while functions may be compiled."""
        return self._enabled and self._stable

    def wrap(self, name: str, function: Callable[P, R]) -> StableWidthFunction[P, R]:
        """A version of a function that is compiled while widths are stable.

        Args:
            name: the function's name in the log.
            function: takes tensors. A network in its closure must not change while widths are stable.
        """
        wrapped = StableWidthFunction(self, name, function)
        self._functions.append(wrapped)
        return wrapped

    def set_stable(self, stable: bool) -> None:
        """Set whether widths are stable from now on. Call this after a pruning step, before the next forward."""
        if not self._enabled or stable == self._stable:
            return
        self._stable = stable
        for function in self._functions:
            function.discard()
        # Frees the code of the old widths, and resets the count at which dynamo gives up.
        torch.compiler.reset()
        if not stable:
            self._log("widths change from now on: the network runs in eager mode until they are stable")

    def reserve(self, name: str, signature: str) -> bool:
        """Count a compilation and return True; log the refusal and return False if the limit is reached."""
        if self.compilations >= self._limit:
            self._log(f"{name} {signature} stays eager: all {self._limit} compilations of this run are used up")
            return False
        self.compilations += 1
        return True

    def compile(self, function: Callable[P, R]) -> Callable[P, R]:
        """Compile a function for static shapes, as one graph."""
        return torch.compile(function, dynamic=False, fullgraph=True, backend=self._backend)

    def report(self, name: str, signature: str, seconds: float) -> None:
        """Log a compilation."""
        self._log(f"compiled {name} {signature} in {seconds:.1f} s ({self.compilations} of at most {self._limit})")


class StableWidthFunction(Generic[P, R]):
    """One function of `StableWidthCompiler`."""

    def __init__(self, owner: StableWidthCompiler, name: str, function: Callable[P, R]) -> None:
        """Use `StableWidthCompiler.wrap`."""
        self._owner = owner
        self._name = name
        self._eager = function
        self._compiled: dict[str, Callable[P, R]] = {}

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """The function's result, computed by compiled code if possible."""
        if not self._owner.active:
            return self._eager(*args, **kwargs)
        signature = _signature([*args, *kwargs.values()])
        cached = self._compiled.get(signature)
        if cached is not None:
            return cached(*args, **kwargs)
        if not self._owner.reserve(self._name, signature):
            self._compiled[signature] = self._eager
            return self._eager(*args, **kwargs)
        compiled = self._owner.compile(self._eager)
        start = time.perf_counter()
        result = compiled(*args, **kwargs)
        self._owner.report(self._name, signature, time.perf_counter() - start)
        self._compiled[signature] = compiled
        return result

    def discard(self) -> None:
        """Discard the compiled code."""
        self._compiled.clear()


def _signature(arguments: list[Any]) -> str:
    """Shapes, dtypes and the gradient mode: dynamo compiles again if one of them changes."""
    tensors = [argument for argument in arguments if isinstance(argument, Tensor)]
    shapes = ", ".join(f"{str(tensor.dtype).removeprefix('torch.')}{list(tensor.shape)}" for tensor in tensors)
    return f"({shapes}){' with gradients' if torch.is_grad_enabled() else ''}"
