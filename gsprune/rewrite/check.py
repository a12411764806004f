"""The forward that a rewritten network must pass before its step is kept."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from gsprune.rewrite.state import Example
from gsprune.tracing.outputs import tensors_in
from gsprune.tracing.tracer import operation_of, plain_operations
from gsprune.tracing.undisturbed import undisturbed

__all__ = ["Failure", "Run", "mismatch", "run"]

# Largest relative difference between the sliced and the masked network's outputs, by dtype. Sums of a few thousand
# terms in another order differ by about 1e-6 in float32; a channel that went missing differs by 1e-2 and more.
_TOLERANCE = {torch.float64: 1e-9, torch.float32: 1e-4, torch.float16: 2e-2, torch.bfloat16: 1e-1}
# Outputs below this are compared with it: what is left where terms cancel (the value of an agent that has not learned)
# is rounded as its terms were, and not as finely as itself. With features of 0.05 a value of 8e-6 was off by 2e-9.
_SMALLEST_SCALE = 1e-4


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


def run(model: nn.Module, example: Example, *, count: bool = False) -> Run:
    """Call the model on the example as it was traced, leaving no trace.

    Args:
        model: the network.
        example: the call.
        count: whether to count operations, which costs some microseconds each.
    """
    counter = _Counter()
    try:
        with undisturbed(model):
            if count:
                with plain_operations(model), counter:
                    output = example.call(model)
            else:
                output = example.call(model)
    except Exception as error:
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


def mismatch(got: Any, expected: Any) -> str | None:
    """How the outputs of two networks differ, or None where they agree within the tolerance of their dtype."""
    ours, theirs = _floating(tensors_in(got)), _floating(tensors_in(expected))
    if len(ours) != len(theirs):
        return f"the outputs hold {len(ours)} tensors, the masked network's {len(theirs)}"
    for a, b in zip(ours, theirs, strict=True):
        if a.shape != b.shape:
            return f"an output has shape {tuple(a.shape)}, the masked network's {tuple(b.shape)}"
        if b.numel() == 0:
            continue
        scale = float(b.abs().max().nan_to_num())
        difference = float((a - b).abs().max().nan_to_num())
        if difference > _TOLERANCE.get(b.dtype, 1e-4) * max(scale, _SMALLEST_SCALE):
            return f"an output differs from the masked network's by {difference:.2g} at a scale of {scale:.2g}"
    return None


def _floating(tensors: Sequence[Tensor]) -> list[Tensor]:
    return [tensor for tensor in tensors if tensor.is_floating_point()]
