"""Runs a network of any precision in float64, to distinguish a wrong result from a rounded one."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from gsprune.rewrite.tensors import canonical_tensors
from gsprune.rewrite.transaction import temporary_data
from gsprune.tracing.example import Example
from gsprune.tracing.operation_mode import OperationMode
from gsprune.tracing.originals import written_arguments
from gsprune.tracing.plain_operations import plain_operations
from gsprune.tracing.rules.registry import Operation

__all__ = ["call_in_float64"]

_WIDER = {
    **dict.fromkeys((torch.float16, torch.bfloat16, torch.float32), torch.float64),
    torch.complex64: torch.complex128,
}
# These functions make a tensor of Python numbers. They round to the default type before any operation is dispatched.
_MAKERS = frozenset((torch.tensor, torch.full, torch.scalar_tensor, torch.arange, torch.linspace, torch.logspace))

# Replaces random numbers: the number itself, or a probability, or a distance from the mean in standard deviations.
_CONSTANT_DRAW = 0.5
# Operations whose floating-point outputs are drawn independently of their inputs' values.
_DRAWS = frozenset(("rand", "randn", "rand_like", "randn_like", "uniform", "normal", "exponential", "log_normal"))


def call_in_float64(model: nn.Module, example: Example, mode: AbstractContextManager[object] | None = None) -> Any:
    """The model's output on the example with every parameter, buffer, input and constant in float64.

    `mode` is a context around the call.

    Parameters and buffers get their contents back, bit for bit, even after an error. Tensors with an explicit type
    (``x.float()``, ``torch.zeros(3)``) are float64, too. Random numbers are replaced by constants: a smaller network
    draws fewer of them, so equal generators do not give both networks the same noise.

    Raises:
        Exception: the network cannot run in float64: it has an operation of the user's own, or one that reads a
            tensor's bits or writes into a tensor of lower precision outside of the network, its code checks a type, or
            the device has no float64.
    """
    inputs = replace(example, args=_widened(example.args), kwargs=_widened(example.kwargs))
    tensors = [tensor for tensor in canonical_tensors(model).values() if tensor.dtype in _WIDER]
    wide = [_widened(tensor.data) for tensor in tensors]
    with temporary_data(tensors, wide), plain_operations(model), _WideNumbers(), _InFloat64(), mode or nullcontext():
        return inputs.call(model)


class _InFloat64(OperationMode):
    """Runs every operation on float64 tensors."""

    def run(self, func: Any, operation: Operation, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Run an operation, unless it may have another meaning in float64."""
        if func.namespace not in ("aten", "prims", "prim") or func is torch.ops.aten.view.dtype:
            raise TypeError(f"{func} may be another operation in float64")
        if operation.mutable:
            _check_writes(func, args, kwargs)
        args, kwargs = _widened(args), _widened(kwargs)
        result = _widened(func(*args, **kwargs))
        if operation.random:
            _without_noise(operation, args, result)
        return result


def _without_noise(operation: Operation, args: tuple[Any, ...], result: Any) -> None:
    """Replace numbers that an operation has drawn by constants of its support, in place. Integers stay random."""
    name = operation.name.removeprefix("aten.")
    parameters = args[1:] if operation.mutable else args
    if name == "native_dropout":
        result[0].copy_(args[0])
        result[1].fill_(True)
    elif name == "bernoulli":
        result.copy_(torch.as_tensor(parameters[-1] if parameters else _CONSTANT_DRAW))  # the probability
    elif name == "normal":
        mean, std = (*parameters, *(0.0, 1.0)[len(parameters) :])[:2]
        result.copy_(torch.as_tensor(mean + _CONSTANT_DRAW * std))
    elif name == "uniform" and len(parameters) > 1:
        result.fill_(sum(parameters[:2]) / 2)
    elif name in _DRAWS:
        result.fill_(_CONSTANT_DRAW)


class _WideNumbers(TorchFunctionMode):
    """Converts numbers in the code to float64 without rounding them first."""

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        del types
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        if func in _MAKERS and result.is_floating_point() and "out" not in kwargs:
            return func(*args, **{**kwargs, "dtype": torch.float64})
        return result


def _check_writes(func: torch._ops.OpOverload, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
    """Refuse to write into a tensor that would be converted to float64: the write would go to the copy."""
    for tensor in written_arguments(func, args, kwargs):
        if tensor.dtype in _WIDER:
            raise TypeError(f"{func} writes into a tensor of {tensor.dtype}")


def _widened(value: Any) -> Any:
    """`value` with all tensors and types in nested tuples, lists and dicts converted to float64."""
    if isinstance(value, Tensor):
        return value.to(_WIDER[value.dtype]) if value.dtype in _WIDER else value
    if isinstance(value, torch.dtype):
        return _WIDER.get(value, value)
    if type(value) in (tuple, list):
        return type(value)(_widened(item) for item in value)
    if type(value) is dict:
        return {key: _widened(item) for key, item in value.items()}
    return value
