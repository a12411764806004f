"""`target="latency"`: the common ratio of channels at which a network meets a budget of milliseconds.

The time of a forward is measured, not modelled: engines jump at widths that suit them. Copies of the network are pruned
to some common ratio, loaded into the engine and timed; what was measured goes into a table that lives on the machine.
The ratio is found by a secant search on the logarithm of the time, in at most `_MAX_TRIALS` measurements.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, replace
from pathlib import Path
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
from gsprune.pruning.step import Request, Step, take_step
from gsprune.rewrite.session import Session, session_of
from gsprune.selection import dense_shapes

__all__ = ["Measure", "Point", "search_ratio", "solve_budget"]

# Half of the 10 % that are promised: the other half is for the clock.
_TOLERANCE = 0.05
_MAX_TRIALS = 12
_HIGHEST_RATIO = 0.99
_SMALLEST_STEP = 1e-3  # of the ratio; a thousandth moves no width below a thousand channels

Measure = Callable[[nn.Module, Session, LatencyBudget], float]
"""(network, its state, budget) -> milliseconds of a forward in the budget's engine."""


@dataclass(frozen=True, slots=True)
class Point:
    """A network that was timed.

    Attributes:
        ratio: of channels that are gone.
        widths: group -> width.
        milliseconds: of one forward.
    """

    ratio: float
    widths: Mapping[str, int]
    milliseconds: float


def solve_budget(
    model: nn.Module,
    state: Session,
    request: Request,
    budget: LatencyBudget,
    folder: Path | None = None,
    measure: Measure | None = None,
) -> float:
    """The common ratio of channels that must go for a forward to take as long as the budget says.

    The model is not touched. The same question on the same machine has the same answer, also in another process.

    Args:
        model: the network.
        state: its state, traced.
        request: the options of the step, with scope "local" and target "channels"; its sparsity is ignored.
        budget: what to meet.
        folder: where the table lies; None takes the machine's cache.
        measure: times a network; None loads it into the budget's engine.

    Returns:
        sparsity in [0, 1), of the first-seen width of every group; 0 where the network is fast enough.

    Raises:
        ValueError: no network of this kind is so fast, or the table cannot be written.
        MissingExtraError: the engine is not installed.
    """
    assert state.graph is not None
    shapes = dense_shapes(state.graph, state.initial_widths)
    table = WidthTable(folder or cache_folder(), table_key(state.graph, shapes, budget))
    ignored = sorted(ignored_groups(model, state.graph, request.ignore))
    question = _question(request, ignored, budget)
    known = table.ratio(question)
    if known is not None:
        return known
    clock = measure or _measured
    # Which channels go is no matter to the clock; other criteria would want gradients, which a copy has not.
    plain = replace(request, importance=resolve_importance("l1"), ignore=ignored)

    def point(ratio: float) -> Point:
        network, present = _pruned_copy(model, state, plain, ratio)
        assert present.graph is not None
        widths = {group.name: group.width for group in present.graph.groups}
        milliseconds = table.milliseconds(widths)
        if milliseconds is None:
            milliseconds = clock(network, present, budget)
            table.add(widths, milliseconds)
        return Point(ratio, widths, milliseconds)

    ratio = search_ratio(point, budget)
    table.answer(question, ratio)
    return ratio


def search_ratio(point: Callable[[float], Point], budget: LatencyBudget) -> float:
    """The smallest ratio whose network meets the budget, up to the tolerance.

    Args:
        point: ratio -> widths and milliseconds.
        budget: what to meet.

    Raises:
        ValueError: not even the narrowest network does.
    """
    goal = budget.milliseconds
    slow = point(0.0)
    if slow.milliseconds <= goal * (1 + _TOLERANCE):
        return 0.0
    fast = point(_HIGHEST_RATIO)
    if fast.milliseconds > goal * (1 + _TOLERANCE):
        raise ValueError(
            f"`sparsity` asks for {budget}, but with {_HIGHEST_RATIO:.0%} of the channels gone a forward still takes"
            f" {fast.milliseconds:.3g} ms (dense: {slow.milliseconds:.3g} ms); ask for more time, or another engine"
        )
    for _ in range(_MAX_TRIALS - 2):
        if abs(fast.milliseconds - goal) <= _TOLERANCE * goal or fast.ratio - slow.ratio < _SMALLEST_STEP:
            break
        middle = point(_between(slow, fast, goal))
        if middle.widths in (slow.widths, fast.widths):
            # No width lies between, or the secant met its end: halving decides which.
            middle = point((slow.ratio + fast.ratio) / 2)
        if middle.milliseconds <= goal * (1 + _TOLERANCE):
            fast = middle
        else:
            slow = middle
    return fast.ratio


def _between(slow: Point, fast: Point, goal: float) -> float:
    """Where the line through both points meets the goal, on a logarithmic axis of time; well inside of both."""
    whole = math.log(slow.milliseconds / fast.milliseconds)
    share = math.log(slow.milliseconds / goal) / whole if whole > 0 else 0.5
    return slow.ratio + min(0.85, max(0.15, share)) * (fast.ratio - slow.ratio)


def _pruned_copy(model: nn.Module, state: Session, request: Request, ratio: float) -> tuple[nn.Module, Session]:
    """A copy of the network at a common ratio, and the copy's state."""
    copy = deepcopy(model)
    known = replace(state, initial_widths=dict(state.initial_widths), cache=None)
    asked = replace(request, selection=replace(request.selection, sparsity=ratio), dry_run=False)
    take_step(Step(copy, known, asked, (), ()))
    after = session_of(copy)
    assert after is not None
    return copy, after


def _measured(model: nn.Module, state: Session, budget: LatencyBudget) -> float:
    example = state.example
    if example is None:
        raise ValueError("`target` is 'latency', which needs `example_inputs` of the real size; pass them once more")
    inputs: Any = {name: _sized(value, budget) for name, value in example.kwargs.items()}
    if not inputs:
        inputs = tuple(_sized(value, budget) for value in example.args)
    (run,) = load(budget.engine, [portable_call(model, inputs, example.forward)], budget.threads)
    return undisturbed_milliseconds(run, budget.threads)


def _sized(value: Any, budget: LatencyBudget) -> Any:
    return with_batch(value, torch.device("cpu"), budget.batch)


def _question(request: Request, ignored: Sequence[str], budget: LatencyBudget) -> str:
    """What the answer depends on besides the table, as a short text."""
    selection = request.selection
    options = json.dumps([selection.round_to, selection.min_channels, list(ignored)], sort_keys=True, default=dict)
    return f"{budget.milliseconds:g} ms, {hashlib.sha256(options.encode()).hexdigest()[:12]}"
