"""The example that a network is traced with: the user's, or one made from the first layer."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from operator import is_
from typing import Any

import torch
from torch import nn

from gsprune.errors import GspruneError, is_out_of_memory
from gsprune.tracing.autocast import AutocastBlock, in_autocast
from gsprune.tracing.outputs import tensors_in

__all__ = ["Example", "as_example", "candidates", "first_outputs", "is_same_call"]

_BATCH = 2  # an axis of size 1 could be squeezed away, or pass for a broadcast one
_FRAME_SIZES = (64, 84, 96, 32, 28, 224)  # common heights and widths of frames, in the order of the tries
_VOLUME_SIZES = (16, 32, 64)
_LENGTH = 8
_MAX_TRIES = 20


@dataclass(slots=True)
class Example:
    """The call that traces and checks the model: ``forward(model, *args, **kwargs)``.

    Attributes:
        args: positional inputs.
        kwargs: inputs by name (an example given as a dict).
        forward: the function to call instead of the model; None calls ``model(*args, **kwargs)``.
        autocast: the autocast blocks without which the call fails (half-precision inputs of a float32 network).
    """

    args: tuple[Any, ...]
    kwargs: dict[str, Any] = field(default_factory=dict)
    forward: Callable[..., Any] | None = None
    autocast: tuple[AutocastBlock, ...] = ()

    def call(self, model: nn.Module) -> Any:
        """The model's output on the example."""
        with in_autocast(self.autocast):
            if self.forward is not None:
                return self.forward(model, *self.args, **self.kwargs)
            return model(*self.args, **self.kwargs)


def as_example(example_inputs: Any, forward: Callable[..., Any] | None, argument: str = "example_inputs") -> Example:
    """The user's example as an `Example`; `argument` is its name in error messages.

    Raises:
        TypeError: it is neither a tensor nor a tuple nor a dict, or `forward` cannot be called.
    """
    if forward is not None and not callable(forward):
        raise TypeError(f"`forward` must be callable(model, *{argument}), or None for the model's own; got {forward!r}")
    if isinstance(example_inputs, torch.Tensor):
        return Example((example_inputs,), {}, forward)
    if isinstance(example_inputs, tuple | list):
        return Example(tuple(example_inputs), {}, forward)
    if isinstance(example_inputs, Mapping):
        return Example((), dict(example_inputs), forward)
    raise TypeError(
        f"`{argument}` must be a tensor, a tuple of positional inputs or a dict of inputs by name, got "
        f"{type(example_inputs).__name__}"
    )


def is_same_call(first: Example, second: Example) -> bool:
    """True if two calls have the same trace: they differ only in the contents of tensors and floats."""
    if not _is_same_function(first.forward, second.forward):
        return False
    return bool(_signature((first.args, first.kwargs)) == _signature((second.args, second.kwargs)))


def _signature(value: Any) -> Any:
    """The properties of an input that determine which operations run, and on which sizes."""
    if isinstance(value, torch.Tensor):
        return value.shape, value.dtype, value.device
    if isinstance(value, tuple | list):
        return type(value), tuple(map(_signature, value))
    if isinstance(value, Mapping):
        return type(value), tuple((key, _signature(item)) for key, item in value.items())
    if value is None or isinstance(value, int | str):
        return value
    return type(value), getattr(value, "shape", None), tuple(map(_signature, tensors_in(value)))


def _is_same_function(first: Any, second: Any) -> bool:
    """True for a function and itself, and for two with the same code and bound objects (a lambda made in a loop)."""
    if first is second or first == second:
        return True
    code = getattr(first, "__code__", None)
    if code is None or code is not getattr(second, "__code__", None):
        return False
    try:
        ours, theirs = _bound_objects(first), _bound_objects(second)
    except ValueError:  # a variable of the enclosing function that has no value yet
        return False
    return len(ours) == len(theirs) and all(map(is_, ours, theirs))


def _bound_objects(function: Any) -> list[Any]:
    """The objects to which a Python function is bound: its `self`, default arguments and closure."""
    cells = (cell.cell_contents for cell in function.__closure__ or ())
    return [getattr(function, "__self__", None), *(function.__defaults__ or ()), *cells]


def first_outputs(model: nn.Module, example: Example, argument: str = "example_inputs") -> Any:
    """The outputs of the first call with a user's inputs.

    Raises:
        ValueError: the forward fails; the message describes the inputs and calls them `argument`.
        Exception: memory ran out, or gsprune's own error.
    """
    try:
        return example.call(model)
    except Exception as error:
        if isinstance(error, GspruneError) or is_out_of_memory(error):
            raise
        inputs = [*example.args, *example.kwargs.values()]
        described = ", ".join(
            f"{value.dtype} {tuple(value.shape)}".removeprefix("torch.")
            if isinstance(value, torch.Tensor)
            else type(value).__name__
            for value in inputs
        )
        raise ValueError(
            f"`{argument}` must be what the forward of {type(model).__name__} takes: it fails on {described} with"
            f" {type(error).__name__}: {str(error).strip() or 'no message'}; pass inputs of the right shapes and"
            " dtypes, or `forward=lambda model, x: ...` where it is called otherwise"
        ) from error


def candidates(model: nn.Module, forward: Callable[..., Any] | None) -> Iterator[Example]:
    """Examples that fit the first layer with weights, likeliest first, at most 20."""
    if forward is None and type(model).forward is nn.Module.forward and hasattr(model, "get_action_and_value"):
        forward = _action_and_value
    for count, (shape, dtype) in enumerate(_shapes(model)):
        if count == _MAX_TRIES:
            return
        yield Example((_filled(shape, dtype, model),), {}, forward)


def _action_and_value(model: nn.Module, *inputs: Any) -> Any:
    """Call a CleanRL agent, which has no `forward`."""
    return model.get_action_and_value(*inputs)  # type: ignore[operator]


def _shapes(model: nn.Module) -> Iterator[tuple[tuple[int, ...], torch.dtype | None]]:
    """Input shapes that fit the first layer, each with a dtype (None: that of the weights)."""
    for layer in model.modules():
        if isinstance(layer, nn.Linear):
            yield (_BATCH, layer.in_features), None
            yield (_BATCH, _LENGTH, layer.in_features), None
        elif isinstance(layer, nn.modules.conv._ConvNd):
            yield from ((shape, None) for shape in _frames(layer.in_channels, len(layer.kernel_size)))
        elif isinstance(layer, nn.Embedding):
            yield (_BATCH, _LENGTH), torch.int64
        elif isinstance(layer, nn.RNNBase):
            yield (_BATCH, _LENGTH, layer.input_size), None
        elif isinstance(layer, nn.RNNCellBase):
            yield (_BATCH, layer.input_size), None
        else:
            continue
        return


def _frames(channels: int, rank: int) -> Iterator[tuple[int, ...]]:
    """Input shapes of a convolution: first those with channels first, then those with channels last."""
    sizes = {1: (_FRAME_SIZES[0], _FRAME_SIZES[-1]), 2: _FRAME_SIZES, 3: _VOLUME_SIZES}.get(rank, ())
    for size in sizes:
        yield (_BATCH, channels, *[size] * rank)
    for size in sizes:
        yield (_BATCH, *[size] * rank, channels)


def _filled(shape: tuple[int, ...], dtype: torch.dtype | None, model: nn.Module) -> torch.Tensor:
    """A random input on the model's device. Torch's global generators are not used."""
    generator = torch.Generator().manual_seed(0)
    first = next(iter(model.parameters()))
    if dtype is not None:
        limit = min((m.num_embeddings for m in model.modules() if isinstance(m, nn.Embedding)), default=1)
        return torch.randint(limit, shape, generator=generator, dtype=dtype).to(first.device)
    floating = next((p.dtype for p in model.parameters() if p.is_floating_point()), torch.float32)
    return torch.rand(shape, generator=generator).to(device=first.device, dtype=floating)
