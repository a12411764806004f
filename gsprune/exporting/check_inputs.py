"""The user's inputs for comparing an exported network with the original."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from gsprune.engines.portable_call import PortableCall
from gsprune.tracing.example import Example, as_example

__all__ = ["check_tensors"]


def check_tensors(check_inputs: Any, example: Example, call: PortableCall) -> tuple[Tensor, ...]:
    """The user's inputs for the comparison, in the order of the call's inputs.

    Returns:
        contiguous tensors on the CPU with the call's dtypes and, except for the number of examples, shapes.

    Raises:
        TypeError: an input is not a tensor.
        ValueError: the inputs do not match the example inputs, or there is no example.
    """
    checks = as_example(check_inputs, None, "check_inputs")
    if len(checks.args) != len(example.args) or set(checks.kwargs) != set(example.kwargs):
        raise ValueError(
            f"`check_inputs` must have the inputs of `example_inputs`: {_described(example)}; got {_described(checks)}"
        )
    values = (*checks.args, *(checks.kwargs[name] for name in example.kwargs))
    for name, value, like in zip(call.input_names, values, call.inputs, strict=True):
        if not isinstance(value, Tensor):
            raise TypeError(f"`check_inputs` must contain only tensors, got {type(value).__name__} for {name!r}")
        shape = ["n", *like.shape[1:]] if like.ndim else []
        if value.dtype != like.dtype or value.ndim != like.ndim or value.shape[1:] != like.shape[1:]:
            raise ValueError(
                f"`check_inputs` must be {like.dtype} ({', '.join(map(str, shape))}) for {name!r}, like"
                f" `example_inputs`; got {value.dtype} {tuple(value.shape)}"
            )
        if value.ndim and not len(value):
            raise ValueError("`check_inputs` must hold at least one example, got none; None takes `example_inputs`")
    return tuple(value.detach().cpu().contiguous() for value in values)


def _described(example: Example) -> str:
    names = f", {sorted(example.kwargs)} by name" if example.kwargs else ""
    return f"{len(example.args)} by position{names}"
