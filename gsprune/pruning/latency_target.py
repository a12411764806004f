"""`target="latency"`: finds the common ratio of removed channels at which a network meets a latency budget.

The time of a forward is measured, not modelled, because engines are much faster at some widths. Copies of the network
are pruned to a common ratio, loaded into the engine and timed. The measurements are stored in a table on this machine.
The ratio is found by a secant search on the logarithm of the time, in at most `_MAX_TRIALS` measurements.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn

from gsprune.engines.budget import LatencyBudget
from gsprune.engines.latency import with_batch
from gsprune.engines.portable_call import portable_call
from gsprune.engines.registry import load
from gsprune.engines.table import WidthTable, cache_folder, table_key
from gsprune.engines.timing import undisturbed_milliseconds
from gsprune.importance import resolve_importance
from gsprune.pruning.ignore import ignored_groups
from gsprune.pruning.options import StepOptions
from gsprune.pruning.step import take_step
from gsprune.rewrite.session import Session, session_of
from gsprune.selection import Selection, dense_shapes

__all__ = ["Point", "options_within_budget", "search_ratio"]

# Half of the documented 10 %. The other half is for errors of the measurement.
_TOLERANCE = 0.05
_MAX_TRIALS = 12
_HIGHEST_RATIO = 0.99
_SMALLEST_STEP = 1e-3  # of the ratio: smaller steps change no width below a thousand channels


@dataclass(frozen=True, slots=True)
class Point:
    """The time of one forward of a network of which a fraction of all channels is removed; `widths` is by group."""

    ratio: float
    widths: Mapping[str, int]
    milliseconds: float


def options_within_budget(
    model: nn.Module, session: Session, options: StepOptions, budget: LatencyBudget
) -> StepOptions:
    """The options with the sparsity that the schedule requires on the way to the budget.

    The model is not changed, and the sparsity of `options` is ignored. With several ranks the first one measures for
    all.

    Raises:
        ValueError: even the narrowest network is too slow, or the table cannot be written.
        MissingExtraError: the engine is not installed.
    """

    def find_ratio() -> float:
        return _find_ratio(model, session, replace(options, consensus=None), budget)

    ratio = find_ratio() if options.consensus is None else options.consensus.from_first("the budget", find_ratio)
    return replace(options, selection=replace(options.selection, sparsity=ratio * budget.reached))


def _find_ratio(model: nn.Module, session: Session, options: StepOptions, budget: LatencyBudget) -> float:
    """The sparsity of every group, in [0, 1), at which the network meets the budget; 0 if the network is fast enough.

    Results are stored, so the same request has the same result on this machine, even in another process.
    """
    graph = session.groups.graph
    shapes = dense_shapes(graph, session.initial_widths)
    table = WidthTable(cache_folder(), table_key(graph, shapes, budget))
    ignored = sorted(ignored_groups(model, graph, options.ignore))
    request = _request_key(options.selection, ignored, budget)
    stored = table.ratio(request)
    if stored is not None:
        return stored
    # The time does not depend on the choice of channels and on weights. Other criteria would need gradients, which a
    # copy lacks.
    l1 = resolve_importance("l1")
    trial = replace(options, importance=l1, ignore=ignored, dry_run=False, compensation=None)

    def measure(ratio: float) -> Point:
        selection = replace(options.selection, sparsity=ratio)
        network, present = _pruned_copy(model, session, replace(trial, selection=selection))
        widths = {group.name: group.width for group in present.groups.graph.groups}
        milliseconds = table.milliseconds(widths)
        if milliseconds is None:
            milliseconds = _measured_milliseconds(network, present, budget)
            table.add(widths, milliseconds)
        return Point(ratio, widths, milliseconds)

    ratio = search_ratio(measure, budget)
    table.add_ratio(request, ratio)
    return ratio


def search_ratio(measure: Callable[[float], Point], budget: LatencyBudget) -> float:
    """Find the smallest ratio whose network meets the budget, up to the tolerance.

    Raises:
        ValueError: even the narrowest network does not meet the budget.
    """
    goal = budget.milliseconds
    slow = measure(0.0)
    if slow.milliseconds <= goal * (1 + _TOLERANCE):
        return 0.0
    fast = measure(_HIGHEST_RATIO)
    if fast.milliseconds > goal * (1 + _TOLERANCE):
        raise ValueError(
            f"`sparsity` is {budget}, but with {_HIGHEST_RATIO:.0%} of the channels removed a forward still takes"
            f" {fast.milliseconds:.3g} ms (dense: {slow.milliseconds:.3g} ms); use a larger budget or another engine"
        )
    for _ in range(_MAX_TRIALS - 2):
        if abs(fast.milliseconds - goal) <= _TOLERANCE * goal or fast.ratio - slow.ratio < _SMALLEST_STEP:
            break
        middle = measure(_ratio_between(slow, fast, goal))
        if middle.widths in (slow.widths, fast.widths):
            # There is no width in between, or the secant step was too short: halve the interval instead.
            middle = measure((slow.ratio + fast.ratio) / 2)
        if middle.milliseconds <= goal * (1 + _TOLERANCE):
            fast = middle
        else:
            slow = middle
    return fast.ratio


def _ratio_between(slow: Point, fast: Point, goal: float) -> float:
    """The ratio at which the line through both points, in log time, meets the goal, but well inside the interval."""
    speedup = math.log(slow.milliseconds / fast.milliseconds)
    share = math.log(slow.milliseconds / goal) / speedup if speedup > 0 else 0.5
    return slow.ratio + min(0.85, max(0.15, share)) * (fast.ratio - slow.ratio)


def _pruned_copy(model: nn.Module, session: Session, options: StepOptions) -> tuple[nn.Module, Session]:
    """A pruned copy of the network, and the copy's session."""
    copy = deepcopy(model)
    take_step(copy, replace(session, initial_widths=dict(session.initial_widths), binding=None), options)
    after = session_of(copy)
    assert after is not None
    return copy, after


def _measured_milliseconds(model: nn.Module, session: Session, budget: LatencyBudget) -> float:
    example = session.example
    if example is None:
        raise ValueError("`target` is 'latency', which needs `example_inputs` of the real size; pass them again")
    inputs: Any = {name: _sized(value, budget) for name, value in example.kwargs.items()}
    if not inputs:
        inputs = tuple(_sized(value, budget) for value in example.args)
    (run,) = load(budget.engine, [portable_call(model, inputs, example.forward)], budget.threads)
    return undisturbed_milliseconds(run, budget.threads)


def _sized(value: Any, budget: LatencyBudget) -> Any:
    return with_batch(value, torch.device("cpu"), budget.batch)


def _request_key(selection: Selection, ignored: Sequence[str], budget: LatencyBudget) -> str:
    """A short text for the budget and the options, which determine the ratio."""
    options = json.dumps([selection.round_to, selection.min_channels, list(ignored)], sort_keys=True, default=dict)
    return f"{budget.milliseconds:g} ms, {hashlib.sha256(options.encode()).hexdigest()[:12]}"
