"""Pruning to a budget of time, with a clock that counts instead of one that ticks."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import gsprune
from gsprune import LatencyBudget
from gsprune.compensation.compensation import Compensation
from gsprune.pruning import latency_target
from gsprune.pruning.latency_target import Point, search_ratio

EXAMPLE = torch.zeros(2, 3, 16, 16)


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 64, 3),
        nn.ReLU(),
        nn.Conv2d(64, 96, 3),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(96, 10),
    )


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[float]:
    """A clock that says 0.2 ms and a millisecond per ten million MACs; the list holds all that it said."""
    said: list[float] = []

    def measured(model: nn.Module, state: Any, budget: LatencyBudget) -> float:
        said.append(0.2 + state.graph.macs() / 1e7)
        return said[-1]

    monkeypatch.setattr(latency_target, "_measured_milliseconds", measured)
    monkeypatch.setenv("GSPRUNE_CACHE", str(tmp_path / "cache"))
    return said


def milliseconds(model: nn.Module) -> float:
    return 0.2 + gsprune.cost(model, EXAMPLE).macs / 1e7


@pytest.mark.parametrize("share", [0.3, 0.5, 0.8])
def test_the_network_meets_the_budget_within_ten_per_cent(clock: list[float], share: float) -> None:
    model = network()
    budget = share * milliseconds(model)
    report = gsprune.prune_step(model, budget, target="latency", example_inputs=EXAMPLE)
    assert report.changed
    assert milliseconds(model) == pytest.approx(budget, rel=0.1)
    assert len(clock) <= 12
    assert f"latency budget: {budget:g} ms in eager (1 thread, batch 1)" in report.notes


def test_the_same_request_is_met_without_measuring_and_repeating_it_changes_nothing(clock: list[float]) -> None:
    first, second = network(), network()
    budget = LatencyBudget(0.4 * milliseconds(first))
    gsprune.prune_step(first, budget, target="latency", example_inputs=EXAMPLE)
    asked = len(clock)
    gsprune.prune_step(second, budget, target="latency", example_inputs=EXAMPLE)
    again = gsprune.prune_step(second, budget, target="latency")
    assert len(clock) == asked
    assert not again.changed
    for one, other in zip(first.parameters(), second.parameters(), strict=True):
        assert torch.equal(one, other)


def test_a_schedule_falls_to_the_budget_and_never_below(clock: list[float]) -> None:
    model = network()
    budget = LatencyBudget(0.4 * milliseconds(model))
    pruner = gsprune.Pruner(
        model, gsprune.schedules.Cubic(final=budget), target="latency", example_inputs=EXAMPLE, round_to=4
    )
    times = []
    for progress in np.linspace(0, 1, 21):
        pruner.step(float(progress))
        times.append(milliseconds(model))
    assert times == sorted(times, reverse=True)
    assert times[3] == times[0]  # before the schedule begins nothing is pruned, nor measured
    assert times[-1] == pytest.approx(budget.milliseconds, rel=0.1)
    assert model[0].out_channels % 4 == 0


def test_ignored_groups_keep_their_width_and_other_criteria_do_not_disturb_the_search(clock: list[float]) -> None:
    model = network()
    model(EXAMPLE).square().sum().backward()
    before = {name: (p.clone(), p.grad.clone()) for name, p in model.named_parameters() if p.grad is not None}
    budget = 0.6 * milliseconds(model)
    options: dict[str, Any] = {"target": "latency", "example_inputs": EXAMPLE, "ignore": (model[0],)}
    gsprune.prune_step(model, budget, importance="taylor", dry_run=True, **options)
    for name, parameter in model.named_parameters():
        assert torch.equal(parameter, before[name][0])
        assert torch.equal(parameter.grad, before[name][1])  # type: ignore[arg-type]
    gsprune.prune_step(model, budget, importance="taylor", **options)
    assert model[0].out_channels == 64
    assert milliseconds(model) == pytest.approx(budget, rel=0.1)


def test_only_the_network_itself_is_compensated(clock: list[float], monkeypatch: pytest.MonkeyPatch) -> None:
    model, observed, observe = network(), [], Compensation.observe

    def noted(self: Compensation, session: Any, plan: Any) -> None:
        observed.append(session.model)
        observe(self, session, plan)

    monkeypatch.setattr(Compensation, "observe", noted)
    options: dict[str, Any] = {"compensate": "linear", "calibration": torch.rand(16, 3, 16, 16)}
    report = gsprune.prune_step(model, 0.6 * milliseconds(model), target="latency", example_inputs=EXAMPLE, **options)
    assert report.compensation is not None
    assert all(each is model for each in observed)


def test_a_network_that_is_fast_enough_is_left_alone(clock: list[float]) -> None:
    model = network()
    report = gsprune.prune_step(model, 2 * milliseconds(model), target="latency", example_inputs=EXAMPLE)
    assert not report.changed
    assert len(clock) == 1


def test_a_budget_that_no_width_meets_is_an_error_that_changes_nothing(clock: list[float]) -> None:
    model = network()
    before = deepcopy(model.state_dict())
    with pytest.raises(
        ValueError, match=r"`sparsity` is 0.1 ms in eager .* still takes 0.2\d* ms .*use a larger budget"
    ):
        gsprune.prune_step(model, 0.1, target="latency", example_inputs=EXAMPLE)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


@pytest.mark.parametrize(
    ("sparsity", "options", "error", "message"),
    [
        (LatencyBudget(1.0), {"target": "macs"}, ValueError, "a LatencyBudget, which needs target='latency'"),
        (1.0, {"target": "latency", "scope": "global"}, ValueError, "`scope` must be 'local' with target='latency'"),
        ({"0": 0.5}, {"target": "latency"}, TypeError, "must be milliseconds or a LatencyBudget"),
        (-1.0, {"target": "latency"}, ValueError, "`milliseconds` must be above 0"),
        (1.0, {"target": "latency", "example_inputs": None}, ValueError, "`target` is 'latency', which depends on"),
    ],
)
def test_a_bad_request_names_the_way_out(
    clock: list[float], sparsity: Any, options: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        gsprune.prune_step(network(), sparsity, **{"example_inputs": EXAMPLE, **options})
    assert not clock


def steps_clock(milliseconds_of: Callable[[int], float]) -> Callable[[float], Point]:
    def point(ratio: float) -> Point:
        width = 32 - int(32 * ratio)
        return Point(ratio, {"a": width}, milliseconds_of(width))

    return point


def test_engines_that_jump_at_multiples_are_met_from_below() -> None:
    point = steps_clock(lambda width: 1.0 + -(-width // 16))  # 3 ms, 2 ms; nothing between
    ratio = search_ratio(point, LatencyBudget(2.5))
    assert point(ratio).milliseconds == 2.0


def test_a_clock_that_jitters_still_ends() -> None:
    noise = np.random.default_rng(0)
    point = steps_clock(lambda width: (0.1 + width / 32) * float(noise.uniform(0.8, 1.25)))
    assert 0 <= search_ratio(point, LatencyBudget(0.5)) < 1


def test_the_real_clock_times_each_engine_that_needs_no_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GSPRUNE_CACHE", str(tmp_path))
    model = network()
    report = gsprune.prune_step(model, LatencyBudget(1e4), target="latency", example_inputs=EXAMPLE)
    assert not report.changed
    assert len(list((tmp_path / "latency").glob("*.json"))) == 1
