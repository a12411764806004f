"""Latency of networks by the clock: calls in turns, on the same input."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from numbers import Integral, Real
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from gsprune.checks import counted
from gsprune.rewrite.tensors import canonical_tensors, unwrapped
from gsprune.tracing.example import Example, first_outputs, given
from gsprune.tracing.undisturbed import undisturbed

__all__ = ["Latency", "in_turns", "latencies", "latency", "with_batch"]

# Fewer say nothing about a median, however slow the network is.
_LEAST_CALLS = 10
_LONGEST_TURN = 10  # calls
_TURN_SECONDS = 0.1

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Latency:
    """How long a forward takes.

    Attributes:
        seconds: (calls,) of every timed call, in the order in which they were made.
        batch: examples per call.
        device: where it ran.
        threads: torch's threads for operations on the CPU.
    """

    seconds: tuple[float, ...]
    batch: int
    device: str
    threads: int

    @property
    def median(self) -> float:
        """The middle of all calls, in seconds."""
        return float(np.median(self.seconds))

    @property
    def p99(self) -> float:
        """99 of 100 calls take at most so long, in seconds; with fewer than 100 calls this is the slowest."""
        return float(np.quantile(self.seconds, 0.99, method="higher"))

    def __str__(self) -> str:
        return (
            f"median {self.median * 1e3:.3f} ms, p99 {self.p99 * 1e3:.3f} ms "
            f"({counted(len(self.seconds), 'call')}, batch {self.batch}, {self.device},"
            f" {counted(self.threads, 'thread')})"
        )


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
    """Time forwards of one network; see `latencies`.

    Args:
        model: the network.
        example_inputs: as in `latencies`.
        forward: as in `latencies`.
        batch: as in `latencies`.
        calls: as in `latencies`.
        warmup: as in `latencies`.
        max_seconds: as in `latencies`.
    """
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

    What else the machine does then slows all of them alike, so that the ratio of two medians can be trusted where a
    median alone cannot. The models run in eval mode without gradients and are as before afterwards. Each is called once
    before the warmup, to see that the inputs fit.

    Args:
        models: the networks, all on the device of the first one's parameters.
        example_inputs: tensor, tuple of positional inputs or dict of inputs by name; moved to the models' device.
        forward: callable(model, *example_inputs) -> outputs; None calls the model.
        batch: examples per call: every tensor with axes is cut or repeated to this length along its first; None takes
            the inputs as they are.
        calls: timed calls per model.
        warmup: calls per model before them.
        max_seconds: end earlier, but after at least 10 calls, when the timed calls have taken so long in all.

    Returns:
        one `Latency` per model.

    Raises:
        ValueError: no model, a number below its least, or inputs on which a model fails.
        TypeError: something is not of its type.
    """
    _check_models(models)
    _check_count("batch", batch, 1)
    _check_count("calls", calls, 1)
    _check_count("warmup", warmup, 0)
    if isinstance(max_seconds, bool) or not isinstance(max_seconds, Real):
        raise TypeError(f"`max_seconds` must be a number of seconds, got {max_seconds!r}")
    if not max_seconds >= 0:
        raise ValueError(f"`max_seconds` must be at least 0, got {max_seconds!r}")
    device = _device(models[0])
    example = _on(device, given(example_inputs, forward), batch)
    runs = [_timed_call(model, example, device) for model in models]
    with ExitStack() as stack:
        for model in models:
            stack.enter_context(undisturbed(model, autocast=True))
        for model in models:
            first_outputs(model, example)
        seconds = in_turns(runs, calls, warmup, max_seconds)
    size = _batch_size((*example.args, *example.kwargs.values()))
    return [Latency(each, size, str(device), torch.get_num_threads()) for each in seconds]


def in_turns(runs: Sequence[Callable[[], T]], calls: int, warmup: int, max_seconds: float) -> list[tuple[T, ...]]:
    """Call several things in turns and keep what each call returns.

    A turn is a few calls in a row of what is quick: a network at work runs alone, and finds its weights and its code in
    the caches. So where several take turns, the call with which a turn begins is not kept.

    Args:
        runs: each does its work once.
        calls: of each, >= 1.
        warmup: calls of each before them, whose results are dropped.
        max_seconds: end earlier, but after at least 10 calls, when they have taken so long in all.

    Returns:
        per run what its calls returned, in the order in which they were made.
    """
    kept: list[list[T]] = [[] for _ in runs]
    for run in runs:
        for _ in range(warmup):
            run()
    in_a_row = _calls_in_a_row(runs, calls)
    began = time.perf_counter()
    for index in range(math.ceil(calls / in_a_row)):
        if len(kept[0]) >= _LEAST_CALLS and time.perf_counter() - began > max_seconds:
            break
        for turn in range(len(runs)):
            which = (turn + index) % len(runs)  # in changing order, so that none always runs after the same one
            if in_a_row > 1:
                runs[which]()
            kept[which] += [runs[which]() for _ in range(in_a_row)]
    return [tuple(each[:calls]) for each in kept]


def _calls_in_a_row(runs: Sequence[Callable[[], Any]], calls: int) -> int:
    """How many calls a turn has: 1 where nothing else takes turns or one of them is slow."""
    if len(runs) == 1 or calls == 1:
        return 1
    slowest = 0.0
    for run in runs:
        began = time.perf_counter()
        run()
        slowest = max(slowest, time.perf_counter() - began)
    return max(1, min(_LONGEST_TURN, calls, int(_TURN_SECONDS / max(slowest, 1e-9))))


def _check_models(models: Sequence[nn.Module]) -> None:
    if isinstance(models, nn.Module) or not isinstance(models, Sequence):
        raise TypeError(f"`models` must be a list of networks, got {type(models).__name__}; for one call `latency`")
    if not models:
        raise ValueError("`models` must be at least 1, got 0")
    for model in models:
        unwrapped(model)  # raises where it is no network


def _check_count(name: str, value: Any, least: int) -> None:
    if value is None and name == "batch":
        return
    if isinstance(value, bool) or not isinstance(value, Integral):
        raise TypeError(f"`{name}` must be a whole number, got {value!r}")
    if value < least:
        raise ValueError(f"`{name}` must be at least {least}, got {value}")


def _timed_call(model: nn.Module, example: Example, device: torch.device) -> Callable[[], float]:
    def run() -> float:
        _synchronize(device)
        began = time.perf_counter()
        example.call(model)
        _synchronize(device)
        return time.perf_counter() - began

    return run


def _synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _device(model: nn.Module) -> torch.device:
    return next((tensor.device for tensor in canonical_tensors(unwrapped(model)).values()), torch.device("cpu"))


def _on(device: torch.device, example: Example, batch: int | None) -> Example:
    """The example on the device and of the batch size."""
    return Example(
        tuple(with_batch(value, device, batch) for value in example.args),
        {name: with_batch(value, device, batch) for name, value in example.kwargs.items()},
        example.forward,
    )


def with_batch(value: Any, device: torch.device, batch: int | None) -> Any:
    """A tensor on `device`, cut or repeated to `batch` examples along its first axis; anything else as it is.

    Raises:
        ValueError: there is no example to be repeated.
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
