"""Checks the calibration data of a step early, and passes them to the criterion and to the compensation."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Literal

from gsprune.compensation.calibration import calibration_calls, check_calibration
from gsprune.compensation.compensation import Compensation
from gsprune.importance import Importance
from gsprune.pruning.options import StepOptions
from gsprune.tracing.example import Example

__all__ = ["Compensate", "check_calibration_data", "with_calibration"]

Compensate = Literal["none", "bias", "linear"]


def check_calibration_data(
    importance: Importance, compensate: Compensate, calibration: Any, example_inputs: Any
) -> None:
    """Raise an error for calibration data that a step would refuse, without running the network.

    An empty list is accepted, to be filled before the step. A compensation without `calibration` uses the example.

    Raises:
        TypeError: a batch has a wrong type.
        ValueError: data are missing, or there are too few examples.
    """
    if calibration is None and importance.needs_calibration:
        raise ValueError(
            f"`importance` {importance.name} needs `calibration`, and got none: pass a few hundred typical inputs, or"
            " use another importance, e.g. 'l1'"
        )
    if compensate != "none" or importance.needs_calibration:
        check_calibration(calibration, example_inputs, _purpose(importance, compensate))


def with_calibration(
    options: StepOptions, compensate: Compensate, calibration: Any, example: Example | None
) -> StepOptions:
    """The options of a step with calibration data, which the criterion and the compensation share.

    Raises:
        TypeError: a batch has a wrong type.
        ValueError: there are too few examples.
    """
    importance, consensus = options.importance, options.consensus
    if compensate == "none" and (calibration is None or not importance.reads_data):
        return options
    calls = calibration_calls(calibration, example, _purpose(importance, compensate))
    if calibration is not None:
        options = replace(options, calibration=calls)
    if compensate == "none":
        return options
    stack = None if consensus is None else consensus.stacked
    compensation = Compensation(calls, compensate, stack, measures_change=options.dry_run)
    return replace(options, compensation=compensation)


def _purpose(importance: Importance, compensate: Compensate) -> str:
    return f"`importance` {importance.name}" if compensate == "none" else "`compensate`"
