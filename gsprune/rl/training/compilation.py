"""torch.compile for a network whose widths change: compiled while they rest, eager in between.

Every new width is a new graph to compile, which takes 16 to 27 s, and after eight of them dynamo silently stays eager.
So the trainer says when widths rest (before the schedule begins and after its end); only then are functions compiled,
each once per signature and phase, never more than `limit` times in a run.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, Generic, ParamSpec, TypeVar

import torch
from torch import Tensor

__all__ = ["CompiledWhileResting", "RestingFunction"]

P = ParamSpec("P")
R = TypeVar("R")


class CompiledWhileResting:
    """Decides, call by call, whether the functions of a run are compiled or eager.

    Attributes:
        compilations: how many were made, over resumed runs too.
    """

    def __init__(
        self,
        enabled: bool,
        log: Callable[[str], None],
        limit: int = 6,
        backend: str | Callable[..., Any] = "inductor",
    ) -> None:
        """Eager until `rest` says that widths rest.

        Args:
            enabled: False keeps everything eager.
            log: takes one line whenever something is compiled, or eager again.
            limit: compilations in the whole run, >= 1.
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
        self._resting = False
        self._functions: list[RestingFunction[Any, Any]] = []

    @property
    def active(self) -> bool:
        """Whether functions may be compiled now."""
        return self._enabled and self._resting

    def wrap(self, name: str, function: Callable[P, R]) -> RestingFunction[P, R]:
        """A function that is compiled while widths rest; arguments are tensors.

        Args:
            name: what the log calls it.
            function: of tensors; what it closes over (a network) must change only while widths do not rest.
        """
        wrapped = RestingFunction(self, name, function)
        self._functions.append(wrapped)
        return wrapped

    def rest(self, resting: bool) -> None:
        """Say whether widths rest from now on; call it after a pruning step, before the next forward."""
        if not self._enabled or resting == self._resting:
            return
        self._resting = resting
        for function in self._functions:
            function.forget()
        # Frees the code of the old widths, and the count at which dynamo gives up.
        torch.compiler.reset()
        if not resting:
            self._log("widths change from now on: the network runs eagerly until they rest")

    def take(self, name: str, signature: str) -> bool:
        """Ask for a compilation; counts it, or says in the log that no more are left."""
        if self.compilations >= self._limit:
            self._log(f"{name} {signature} stays eager: all {self._limit} compilations of this run are used up")
            return False
        self.compilations += 1
        return True

    def compile(self, function: Callable[P, R]) -> Callable[P, R]:
        """`function` as torch.compile makes it, for static shapes and without a break in its graph."""
        return torch.compile(function, dynamic=False, fullgraph=True, backend=self._backend)

    def report(self, name: str, signature: str, seconds: float) -> None:
        """Log a compilation."""
        self._log(f"compiled {name} {signature} in {seconds:.1f} s ({self.compilations} of at most {self._limit})")


class RestingFunction(Generic[P, R]):
    """One function of `CompiledWhileResting`."""

    def __init__(self, owner: CompiledWhileResting, name: str, function: Callable[P, R]) -> None:
        """Use `CompiledWhileResting.wrap`."""
        self._owner = owner
        self._name = name
        self._eager = function
        self._compiled: dict[str, Callable[P, R]] = {}

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """The function's result; compiled where a compilation is made or at hand."""
        if not self._owner.active:
            return self._eager(*args, **kwargs)
        signature = _signature([*args, *kwargs.values()])
        known = self._compiled.get(signature)
        if known is not None:
            return known(*args, **kwargs)
        if not self._owner.take(self._name, signature):
            self._compiled[signature] = self._eager
            return self._eager(*args, **kwargs)
        compiled = self._owner.compile(self._eager)
        start = time.perf_counter()
        result = compiled(*args, **kwargs)
        self._owner.report(self._name, signature, time.perf_counter() - start)
        self._compiled[signature] = compiled
        return result

    def forget(self) -> None:
        """Drop what was compiled."""
        self._compiled.clear()


def _signature(arguments: list[Any]) -> str:
    """What dynamo would compile anew for: shapes, types, and whether gradients are recorded."""
    tensors = [argument for argument in arguments if isinstance(argument, Tensor)]
    shapes = ", ".join(f"{str(tensor.dtype).removeprefix('torch.')}{list(tensor.shape)}" for tensor in tensors)
    return f"({shapes}){' with gradients' if torch.is_grad_enabled() else ''}"
