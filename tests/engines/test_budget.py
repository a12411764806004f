from __future__ import annotations

from typing import Any

import pytest

from gsprune import LatencyBudget, schedules


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"milliseconds": 0}, ValueError, "`milliseconds` must be above 0 and finite, got 0"),
        ({"milliseconds": float("inf")}, ValueError, "`milliseconds` must be above 0 and finite, got inf"),
        ({"milliseconds": "1"}, TypeError, "`milliseconds` must be a number, got '1'"),
        ({"milliseconds": 1, "engine": "tvm"}, ValueError, "`engine` must be one of 'eager', .*, got 'tvm'"),
        ({"milliseconds": 1, "threads": 0}, ValueError, "`threads` must be at least 1, got 0"),
        ({"milliseconds": 1, "batch": 1.5}, TypeError, "`batch` must be a whole number, got 1.5"),
        ({"milliseconds": 1, "reached": 1.1}, ValueError, r"`reached` must be in \[0, 1\].*got 1.1"),
    ],
)
def test_a_bad_budget_names_what_is_wrong(options: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        LatencyBudget(**options)


def test_a_schedule_says_how_far_on_the_way_to_the_budget_it_is() -> None:
    budget = LatencyBudget(2.0, engine="onnxruntime", threads=2)
    schedule = schedules.Cubic(final=budget, begin=0.2, end=0.8)
    assert schedule(0.1) == budget.at(0.0)
    halfway = schedule(0.5)
    assert isinstance(halfway, LatencyBudget)
    assert halfway.reached == pytest.approx(0.875)
    assert halfway.at(1.0) == budget
    assert schedule(0.9) == budget
    assert str(budget) == "2 ms in onnxruntime (2 threads, batch 1)"


def test_a_schedule_whose_form_depends_on_the_final_sparsity_refuses_a_budget() -> None:
    with pytest.raises(ValueError, match="`final` must be a sparsity for Exponential"):
        schedules.Exponential(final=LatencyBudget(1.0))
