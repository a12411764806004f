"""One forward of a rewritten network on the example, watched for operations that make tensors of wrong sizes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from math import isclose
from typing import Any

import torch
from torch import Tensor, nn

from gsprune.errors import is_out_of_memory
from gsprune.rewrite.stored_sizes import StoredSize, StoredSizeWatcher, mark_stored_sizes
from gsprune.tracing.call import outputs_of
from gsprune.tracing.constants import first_number, number_of
from gsprune.tracing.example import Example
from gsprune.tracing.operation_mode import OperationMode
from gsprune.tracing.plain_operations import plain_operations
from gsprune.tracing.rules.registry import Operation
from gsprune.tracing.structure import ExpectedOperation
from gsprune.tracing.temporary_eval import temporary_eval

__all__ = ["Failure", "Outcome", "watched_call"]

# Operations after which sizes, or the way that the forward goes, may depend on values.
_READS_DATA = {torch.Tag.dynamic_output_shape, torch.Tag.data_dependent_output}


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a rewritten network is not accepted.

    Attributes:
        message: one phrase.
        error: the exception, None where the outputs differ.
        modules: the modules whose forward was running when the exception was raised, outermost first.
        stored_sizes: the attributes of user modules that the arguments of the failing call come from.
    """

    message: str
    error: Exception | None
    modules: tuple[nn.Module, ...]
    stored_sizes: tuple[StoredSize, ...] = ()


@dataclass(frozen=True, slots=True)
class Outcome:
    """One forward on the example.

    Attributes:
        output: the return value; None where the call failed.
        failure: None where the call returned.
        operations: number of dispatched operations that succeeded; 0 where they were not watched.
    """

    output: Any
    failure: Failure | None
    operations: int


class _WrittenSizeError(Exception):
    """An operation made a tensor of another size than it must: a size in the code has not followed."""


class _Counter(OperationMode):
    """Counts operations that succeed as the tracer does, so that a failure can be placed in the traced sequence.

    An operation that makes a tensor of another size than it must does not succeed. Nothing can be said of sizes that
    depend on data, nor once the forward goes another way than when it was traced.

    Args:
        expected: the sizes that each operation must make, in order.
    """

    def __init__(self, expected: Sequence[ExpectedOperation]) -> None:
        super().__init__()
        self.expected = expected
        self.operations = 0

    def run(self, func: Any, operation: Operation, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Run an operation, and compare the sizes that it makes with those that it must make."""
        result = func(*args, **kwargs)
        if self.operations < len(self.expected):
            expected = self.expected[self.operations]
            goes_on = expected.op == operation.name and not _READS_DATA.intersection(func.tags)
            if goes_on and _has_sizes(expected, outputs_of(result)):
                _check_scale(expected, args, kwargs)
                self._check_numbers(expected, args)
            else:
                self.expected = ()
        self.operations += 1
        return result

    def _check_numbers(self, expected: ExpectedOperation, args: Sequence[Any]) -> None:
        """Compare the numbers among an operation's arguments with those of the trace."""
        for index, number in expected.numbers:
            value = first_number(args[index])
            if value is not None and not isclose(value, number, rel_tol=1e-4):
                self.operations += 1  # the operation itself has met the channels that the number is of
                raise _WrittenSizeError(f"{expected.op} is given {value:.4g}, computed from a width; it was {number:.4g}")


def _has_sizes(expected: ExpectedOperation, outputs: Sequence[Tensor]) -> bool:
    """True if an operation made the sizes that it must make; False where that is uncertain.

    Torch moves axes of size 1 about (`torch.einsum` does), so that nothing is where it was expected.

    Raises:
        _WrittenSizeError: it did not.
    """
    for tensor, axes in zip(outputs, expected.outputs, strict=False):
        for axis, _, size in axes or ():
            if axis >= tensor.ndim or tensor.shape[axis] != size:
                if any(other == 1 for _, _, other in axes or ()):
                    return False
                raise _WrittenSizeError(f"{expected.op} makes {size} channels fill a shape of {tuple(tensor.shape)}")
    return True


def _check_scale(expected: ExpectedOperation, args: Sequence[Any], kwargs: Mapping[str, Any]) -> None:
    """Compare the number that an operation scales by with the one that follows from the width by now."""
    if expected.scale is None:
        return
    value = number_of(kwargs["scale"] if "scale" in kwargs else args[1] if len(args) > 1 else None)
    if value is not None and not isclose(value, expected.scale, rel_tol=1e-4):
        raise _WrittenSizeError(f"{expected.op} scales by {value:.4g} where the width asks for {expected.scale:.4g}")


def watched_call(
    model: nn.Module,
    example: Example,
    expected: Sequence[ExpectedOperation] | None = None,
    *,
    find_stored_sizes: bool = False,
    call: Callable[[nn.Module, Example], Any] | None = None,
) -> Outcome:
    """Call the model on the example as it was traced, leaving no trace.

    Args:
        model: the network.
        example: the call.
        expected: the sizes that each operation must make; None leaves operations unwatched, which saves microseconds each.
        find_stored_sizes: find the attributes that the arguments of a failing call come from.
        call: calls the model; None calls it as the example says.

    Raises:
        Exception: memory ran out while the network was called as the example says.
    """
    counter, watcher = _Counter(expected or ()), StoredSizeWatcher()
    try:
        with temporary_eval(model):
            if find_stored_sizes:
                mark_stored_sizes(model)
            if expected is not None:
                with plain_operations(model), watcher if find_stored_sizes else nullcontext(), counter:
                    output = example.call(model)
            else:
                output = example.call(model) if call is None else call(model, example)
    except Exception as error:
        if call is None and is_out_of_memory(error):
            raise
        reason = str(error).strip() or "no message"
        message = f"{type(error).__name__}: {reason.splitlines()[0]}"
        return Outcome(None, Failure(message, error, _modules_of(error), watcher.sizes), counter.operations)
    return Outcome(output, None, counter.operations)


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
