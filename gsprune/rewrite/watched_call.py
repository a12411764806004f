"""One forward of a rewritten network on the example, watched for operations that make tensors of wrong sizes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from math import isclose
from typing import Any

from torch import Tensor, nn

from gsprune.errors import first_line, is_out_of_memory
from gsprune.rewrite.agreement import coarse_tolerance
from gsprune.rewrite.reference_values import sample
from gsprune.rewrite.stored_sizes import StoredSize, StoredSizeWatcher, mark_stored_sizes
from gsprune.tracing.call import outputs_of
from gsprune.tracing.constants import typical_number
from gsprune.tracing.example import Example
from gsprune.tracing.operation_mode import OperationMode
from gsprune.tracing.plain_operations import plain_operations
from gsprune.tracing.rules.registry import Operation
from gsprune.tracing.structure import ExpectedOperation
from gsprune.tracing.temporary_eval import temporary_eval
from gsprune.tracing.tracer import modules_on_traceback
from gsprune.tracing.training_mode import set_training_mode

__all__ = ["Failure", "Outcome", "WrongNumberError", "WrongValueError", "watched_call"]


@dataclass(frozen=True, slots=True)
class Failure:
    """The reason why a rewritten network is not accepted.

    Attributes:
        message: the exception's type and first line, or how the outputs differ.
        error: the exception; None if the outputs differ.
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
        output: the return value; None if the call failed.
        failure: None if the call returned.
        operations: number of dispatched operations that succeeded; 0 if they were not watched.
    """

    output: Any
    failure: Failure | None
    operations: int


class _WrittenSizeError(Exception):
    """An operation made a tensor of another size than expected: the code has a fixed size."""


class WrongNumberError(_WrittenSizeError):
    """The code has computed a number from a width.

    It differs from the number in the trace, or is not the scale that belongs to the width of the queries.
    """


class WrongValueError(_WrittenSizeError):
    """An operation computes other values than in the masked network."""


class _ExpectedSizes(OperationMode):
    """Counts operations, and raises an error if one makes an output of another size, or other values, than `expected`.

    The comparison ends if the forward takes another path than in the trace, or computes another number from values.
    """

    def __init__(self, expected: Sequence[ExpectedOperation]) -> None:
        super().__init__()
        self.expected = expected
        self.operations = 0

    def run(self, func: Any, operation: Operation, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Run an operation and compare the sizes of its outputs with the expected ones."""
        result = func(*args, **kwargs)
        if self.operations < len(self.expected):
            expected = self.expected[self.operations]
            is_same_path = expected.op == operation.name and _reads_the_same(expected, result)
            if is_same_path and _has_sizes(expected, outputs_of(result)):
                _check_numbers(expected, args, kwargs)
                _check_values(expected, outputs_of(result))
            else:
                self.expected = ()
        self.operations += 1
        return result


def _reads_the_same(expected: ExpectedOperation, result: Any) -> bool:
    """True if the operation computes no number or size from values, or the same one as in the trace."""
    if not isinstance(expected.reading, tuple):
        return expected.reading is None or bool(expected.reading == result)
    for index, (tensor, sizes) in enumerate(zip(outputs_of(result), expected.reading, strict=True)):
        axes = expected.outputs[index] if index < len(expected.outputs) else ()
        if axes is None or tensor.ndim != len(sizes):
            return False
        labelled = [axis for axis, _, _ in axes]
        if any(tensor.shape[axis] != size for axis, size in enumerate(sizes) if axis not in labelled):
            return False
    return True


def _has_sizes(expected: ExpectedOperation, outputs: Sequence[Tensor]) -> bool:
    """True if the outputs have the expected sizes; False if that is uncertain.

    If the expected sizes stand at other axes, and one of them is 1, torch may have moved it (in `torch.einsum`).

    Raises:
        _WrittenSizeError: an output has another size.
    """
    for tensor, axes in zip(outputs, expected.outputs, strict=False):
        sizes = Counter(size for _, _, size in axes or ())
        for axis, _, size in axes or ():
            if axis >= tensor.ndim or tensor.shape[axis] != size:
                if 1 in sizes and sizes <= Counter(tensor.shape):
                    return False
                raise _WrittenSizeError(f"{expected.op} makes {size} channels fill a shape of {tuple(tensor.shape)}")
    return True


def _check_numbers(expected: ExpectedOperation, args: Sequence[Any], kwargs: Mapping[str, Any]) -> None:
    """Compare the numbers among an operation's arguments with the expected ones."""
    for place, number in expected.numbers:
        value = typical_number(_argument_at(place, args, kwargs))
        if value is not None and not isclose(value, number, rel_tol=1e-4):
            raise WrongNumberError(
                f"{expected.op} is given {value:.4g}, computed from a width, instead of {number:.4g}"
            )


def _check_values(expected: ExpectedOperation, outputs: Sequence[Tensor]) -> None:
    """Compare a few values of an operation's outputs with the expected ones."""
    for tensor, values in zip(outputs, expected.samples, strict=False):
        own = None if values is None else sample(tensor)
        if own is None or values is None or len(own) != len(values) or not values.isfinite().all():
            continue
        if not float((own - values).abs().max()) <= coarse_tolerance(tensor.dtype) * float(values.abs().max()):
            raise WrongValueError(f"{expected.op} computes other values than in the masked network")


def watched_call(
    model: nn.Module,
    example: Example,
    expected: Sequence[ExpectedOperation] | None = None,
    *,
    training: bool = False,
    find_stored_sizes: bool = False,
    call: Callable[[nn.Module, Example], Any] | None = None,
) -> Outcome:
    """Call the model on the example in the mode in which it was traced, and restore its state.

    Without `expected` operations nothing is compared, which saves microseconds per operation. With `training`, the
    user's modules are in training mode. `find_stored_sizes` finds the attributes that the arguments of a failing call
    come from. `call(model, example)` replaces the example's own.

    Raises:
        Exception: memory ran out, and `call` is None.
    """
    sizes, watcher = _ExpectedSizes(expected or ()), StoredSizeWatcher()
    try:
        with temporary_eval(model):
            if training:
                set_training_mode(model)
            if find_stored_sizes:
                mark_stored_sizes(model)
            if expected is not None:
                with plain_operations(model), watcher if find_stored_sizes else nullcontext(), sizes:
                    output = example.call(model)
            else:
                output = example.call(model) if call is None else call(model, example)
    except Exception as error:
        if call is None and is_out_of_memory(error):
            raise
        message = f"{first_line(error)}{' (in training mode)' if training else ''}"
        return Outcome(None, Failure(message, error, modules_on_traceback(error), watcher.sizes), sizes.operations)
    return Outcome(output, None, sizes.operations)


def _argument_at(place: int | str, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
    """The argument at a position or with a name; None if there is none."""
    if isinstance(place, str):
        return kwargs.get(place)
    return args[place] if place < len(args) else None
