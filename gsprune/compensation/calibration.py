"""The calibration data as calls of the network."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from torch import Tensor

from gsprune.tracing.example import Example, as_example
from gsprune.tracing.outputs import tensors_in

__all__ = ["MIN_EXAMPLES", "calibration_calls", "check_calibration"]

# A map that is fitted on fewer examples would fit their noise.
MIN_EXAMPLES = 16


def calibration_calls(calibration: Any, example: Example | None, purpose: str = "`compensate`") -> list[Example]:
    """One call of the network per batch of `calibration`, which is a batch or an iterable of batches.

    None uses the network's own example. All calls have the example's `forward`. `purpose` is for messages.

    Raises:
        TypeError: a batch is of another type.
        ValueError: there are fewer than `MIN_EXAMPLES` examples.
    """
    forward = None if example is None else example.forward
    if calibration is None:
        calls = [] if example is None else [example]
    else:
        calls = [as_example(batch, forward, "calibration") for batch in _batches(calibration)]
    if example is not None:
        calls = [replace(call, autocast=example.autocast) for call in calls]
    _check_count(calls, purpose, "the example" if calibration is None else "`calibration`")
    return calls


def check_calibration(calibration: Any, example_inputs: Any, purpose: str = "`compensate`") -> None:
    """Raise an error for calibration data that the first step would refuse.

    Data loaders, iterators and empty lists are not checked. The example replaces a `calibration` of None.

    Raises:
        TypeError: a batch is of another type.
        ValueError: there are fewer than `MIN_EXAMPLES` examples.
    """
    if calibration is None and example_inputs is not None:
        _check_count([as_example(example_inputs, None)], purpose, "the example")
    elif calibration is not None:
        batches = _batches(calibration)
        # A data loader may be long, and an iterator can be read only once.
        calls = [as_example(batch, None, "calibration") for batch in batches] if isinstance(batches, Sequence) else []
        if calls:
            _check_count(calls, purpose, "`calibration`")


def _batches(calibration: Any) -> Iterable[Any]:
    if isinstance(calibration, Tensor | tuple | Mapping):
        return (calibration,)
    if not isinstance(calibration, Iterable):
        raise TypeError(
            "`calibration` must be a tensor, a tuple of inputs, a dict of inputs or an iterable of these, got"
            f" {type(calibration).__name__}"
        )
    return calibration


def _check_count(calls: Sequence[Example], purpose: str, source: str) -> None:
    count = sum(_num_examples(call) for call in calls)
    if count < MIN_EXAMPLES:
        raise ValueError(
            f"{purpose} needs at least {MIN_EXAMPLES} examples of real inputs, and {source} has {count}: pass"
            " `calibration=` a few hundred inputs of the kind that the network works on"
        )


def _num_examples(call: Example) -> int:
    """The length of the batch axis, the first axis of the first tensor."""
    return next((tensor.shape[0] for tensor in tensors_in((call.args, call.kwargs)) if tensor.ndim), 1)
