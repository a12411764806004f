"""The calibration data as calls of the network."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from torch import Tensor

from gsprune.tracing.example import Example, as_example
from gsprune.tracing.outputs import tensors_in

__all__ = ["MIN_EXAMPLES", "calibration_calls"]

# Fewer examples say next to nothing about the channels: the map would fit their noise.
MIN_EXAMPLES = 16


def calibration_calls(calibration: Any, example: Example | None, purpose: str = "`compensate`") -> list[Example]:
    """One call of the network per batch of calibration data.

    Args:
        calibration: a tensor, a batch (a tuple of positional inputs or a dict of inputs by name), or an iterable of
            batches; None takes the example.
        example: the network's own example, whose `forward` is called.
        purpose: what the data is for, in messages.

    Raises:
        TypeError: a batch is of another type.
        ValueError: there are fewer than `MIN_EXAMPLES` examples.
    """
    forward = None if example is None else example.forward
    if calibration is None:
        calls = [] if example is None else [example]
    elif isinstance(calibration, Tensor | tuple | Mapping):
        calls = [as_example(calibration, forward, "calibration")]
    elif isinstance(calibration, Iterable):
        calls = [as_example(batch, forward, "calibration") for batch in calibration]
    else:
        raise TypeError(
            "`calibration` must be a tensor, a tuple of inputs, a dict of inputs or an iterable of these, got"
            f" {type(calibration).__name__}"
        )
    if example is not None:
        calls = [replace(call, autocast=example.autocast) for call in calls]
    count = sum(_num_examples(call) for call in calls)
    if count < MIN_EXAMPLES:
        source = "the example" if calibration is None else "`calibration`"
        raise ValueError(
            f"{purpose} needs at least {MIN_EXAMPLES} examples of real inputs, and {source} has {count}: pass"
            " `calibration=` a few hundred inputs of the kind that the network works on"
        )
    return calls


def _num_examples(call: Example) -> int:
    """The length of the batch axis, the first axis of the first tensor."""
    return next((tensor.shape[0] for tensor in tensors_in((call.args, call.kwargs)) if tensor.ndim), 1)
