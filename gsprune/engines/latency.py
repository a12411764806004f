"""Latency of networks: timed calls in turns, on the same input."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import Any

import torch
from torch import Tensor, nn

from gsprune.checks import check_number, check_whole
from gsprune.engines.timing import Forward, Latency, forwards_in_turns
from gsprune.rewrite.tensors import canonical_tensors, unwrapped
from gsprune.tracing.example import Example, as_example, first_outputs
from gsprune.tracing.temporary_eval import temporary_eval

__all__ = ["latencies", "latency", "with_batch"]


def latency(
    model: nn.Module,
    example_inputs: Any,
    *,
    forward: Callable[..., Any] | None = None,
    batch: int | None = None,
    calls: int = 200,
    warmup: int = 20,
    max_seconds: float = 10.0,
) -> Latency:
    """Time forwards of one network. The arguments are those of `latencies`, with one model."""
    return latencies(
        [model], example_inputs, forward=forward, batch=batch, calls=calls, warmup=warmup, max_seconds=max_seconds
    )[0]


def latencies(
    models: Sequence[nn.Module],
    example_inputs: Any,
    *,
    forward: Callable[..., Any] | None = None,
    batch: int | None = None,
    calls: int = 200,
    warmup: int = 20,
    max_seconds: float = 10.0,
) -> list[Latency]:
    """Time forwards of several networks side by side, on the same input and in turns.

    Other load on the machine then slows all networks alike, so the ratio of two medians is more reliable than a single
    median. The models run in eval mode without gradients; their mode is restored afterwards. Each model is called once
    before the warmup, to check that the inputs fit.

    Args:
        models: the networks, all on the device of the first one's parameters.
        example_inputs: tensor, tuple of positional inputs or dict of inputs by name; moved to the models' device.
        forward: callable(model, *example_inputs) -> outputs; None calls the model.
        batch: examples per call. Every tensor is cut or repeated to this length along its first axis. None keeps the
            lengths of the inputs.
        calls: timed calls per model.
        warmup: untimed calls per model before the timed ones.
        max_seconds: time limit for all timed calls together; it does not stop the first ten calls of each model.

    Returns:
        one `Latency` per model.

    Raises:
        ValueError: there is no model, a number is too small, or a model fails on the inputs.
        TypeError: an argument has a wrong type.
    """
    _check_models(models)
    if batch is not None:
        check_whole("batch", batch, at_least=1)
    check_whole("calls", calls, at_least=1)
    check_whole("warmup", warmup, at_least=0)
    check_number("max_seconds", max_seconds, at_least=0)
    device = _device(models[0])
    example = _on(device, as_example(example_inputs, forward), batch)
    forwards = [_timed_call(model, example, device) for model in models]
    with ExitStack() as stack:
        for model in models:
            stack.enter_context(temporary_eval(model, autocast=True))
        for model in models:
            first_outputs(model, example)
        _synchronize(device)
        size = _batch_size((*example.args, *example.kwargs.values()))
        return forwards_in_turns(
            forwards,
            torch.get_num_threads(),
            batch=size,
            calls=calls,
            warmup=warmup,
            max_seconds=max_seconds,
            device=str(device),
        )


def _check_models(models: Sequence[nn.Module]) -> None:
    if isinstance(models, nn.Module) or not isinstance(models, Sequence):
        raise TypeError(f"`models` must be a list of networks, got {type(models).__name__}; for one, call `latency`")
    if not models:
        raise ValueError("`models` must hold at least one network, got none")
    for model in models:
        unwrapped(model)  # raises if it is no network


def _timed_call(model: nn.Module, example: Example, device: torch.device) -> Forward:
    def run() -> None:
        example.call(model)
        _synchronize(device)

    return run


def _synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _device(model: nn.Module) -> torch.device:
    return next((tensor.device for tensor in canonical_tensors(unwrapped(model)).values()), torch.device("cpu"))


def _on(device: torch.device, example: Example, batch: int | None) -> Example:
    """The example on the device with the batch size."""
    return Example(
        tuple(with_batch(value, device, batch) for value in example.args),
        {name: with_batch(value, device, batch) for name, value in example.kwargs.items()},
        example.forward,
    )


def with_batch(value: Any, device: torch.device, batch: int | None) -> Any:
    """A tensor on `device`, cut or repeated to `batch` examples along its first axis; anything else as it is.

    Raises:
        ValueError: the tensor has no example to repeat.
    """
    if not isinstance(value, Tensor):
        return value
    if batch is not None and value.ndim > 0:
        if len(value) == 0:
            raise ValueError(
                f"`example_inputs` must hold at least one example to make a batch of {batch} of, got a tensor of shape"
                f" {tuple(value.shape)}"
            )
        value = value[torch.arange(batch, device=value.device) % len(value)]
    return value.to(device)


def _batch_size(inputs: Sequence[Any]) -> int:
    return next((len(value) for value in inputs if isinstance(value, Tensor) and value.ndim > 0), 1)
