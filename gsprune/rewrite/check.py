"""The forward that a rewritten network must pass before its step is kept."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from gsprune.rewrite.state import Example
from gsprune.tracing.tracer import operation_of, plain_operations
from gsprune.tracing.undisturbed import undisturbed

__all__ = ["Failure", "Run", "is_out_of_memory", "run"]


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a rewritten network is not accepted.

    Attributes:
        message: one phrase.
        error: the exception, None where the outputs differ.
        modules: the modules whose forward was running when the exception was raised, outermost first.
    """

    message: str
    error: Exception | None
    modules: tuple[nn.Module, ...]


@dataclass(frozen=True, slots=True)
class Run:
    """One forward on the example.

    Attributes:
        output: what the call returned; None where it failed.
        failure: None where it returned.
        operations: how many dispatched operations had succeeded.
    """

    output: Any
    failure: Failure | None
    operations: int


class _Counter(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts operations that succeed as the tracer does, so that a failure can be placed in the traced sequence."""

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """Torch would import its compiler (seconds) on the first operation, only to keep it out of this method."""
        return False

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.operations = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if operation_of(func).composite:
            with self:
                result = func.decompose(*args, **(kwargs or {}))
            if result is not NotImplemented:
                return result
        result = func(*args, **(kwargs or {}))
        self.operations += 1
        return result


def is_out_of_memory(error: BaseException) -> bool:
    """Whether memory ran out, which says nothing of the network. Torch's CPU allocator raises a mere RuntimeError."""
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or "can't allocate memory" in str(error)


def run(
    model: nn.Module,
    example: Example,
    *,
    count: bool = False,
    call: Callable[[nn.Module, Example], Any] | None = None,
) -> Run:
    """Call the model on the example as it was traced, leaving no trace.

    Args:
        model: the network.
        example: the call.
        count: whether to count operations, which costs some microseconds each.
        call: how to call it; None as the example says.

    Raises:
        Exception: memory ran out while the network was called as the example says.
    """
    counter = _Counter()
    try:
        with undisturbed(model):
            if count:
                with plain_operations(model), counter:
                    output = example.call(model)
            else:
                output = example.call(model) if call is None else call(model, example)
    except Exception as error:
        if call is None and is_out_of_memory(error):
            raise
        message = (
            f"{type(error).__name__}: {str(error).strip().splitlines()[0] if str(error).strip() else 'no message'}"
        )
        return Run(None, Failure(message, error, _modules_of(error)), counter.operations)
    return Run(output, None, counter.operations)


def _modules_of(error: Exception) -> tuple[nn.Module, ...]:
    """The modules on the traceback, outermost first."""
    modules: list[nn.Module] = []
    trace = error.__traceback__
    while trace is not None:
        owner = trace.tb_frame.f_locals.get("self")
        if isinstance(owner, nn.Module) and (not modules or modules[-1] is not owner):
            modules.append(owner)
        trace = trace.tb_next
    return tuple(modules)
