"""Schedules as tables, and what all of them promise."""

from __future__ import annotations

import itertools
import math
from dataclasses import FrozenInstanceError
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gsprune.schedules import Cosine, Cubic, Exponential, Linear, OneShot, Polynomial, Schedule

ALL: list[type[Schedule]] = [Polynomial, Cubic, Linear, Cosine, Exponential, OneShot]

HALFWAY = {
    Polynomial: 0.8 * 7 / 8,
    Cubic: 0.8 * 7 / 8,
    Linear: 0.4,
    Cosine: 0.4,
    Exponential: 1 - math.sqrt(0.2),
    OneShot: 0.8,
}


@pytest.mark.parametrize("kind", ALL)
def test_values_at_the_ends_and_halfway(kind: type[Schedule]) -> None:
    schedule = kind(final=0.8, begin=0.2, end=0.8)
    assert [schedule(progress) for progress in (0.0, 0.2)] == [0.0, 0.0]
    assert schedule(0.5) == pytest.approx(HALFWAY[kind])
    assert [schedule(progress) for progress in (0.8, 1.0)] == [0.8, 0.8]


@pytest.mark.parametrize(("power", "value"), [(1, 0.25), (2, 0.4375), (0.5, 1 - math.sqrt(0.75))])
def test_power_of_a_polynomial(power: float, value: float) -> None:
    assert Polynomial(0.9, 0.0, 1.0, power)(0.25) == pytest.approx(0.9 * value)


def test_exponential_removes_equal_fractions_of_what_is_left() -> None:
    kept = [1 - Exponential(0.9, 0.0, 1.0)(progress) for progress in (0.0, 0.25, 0.5, 0.75, 1.0)]
    ratios = [after / before for before, after in itertools.pairwise(kept)]
    assert ratios == pytest.approx([ratios[0]] * 4)


def test_one_shot_needs_no_end() -> None:
    schedule = OneShot(0.5, begin=0.9)
    assert [schedule(progress) for progress in (0.9, 0.91, 1.0)] == [0.0, 0.5, 0.5]


def test_begin_equal_to_end_is_a_jump() -> None:
    schedule = Cubic(0.5, 0.3, 0.3)
    assert [schedule(progress) for progress in (0.29, 0.3, 0.31)] == [0.0, 0.5, 0.5]


@pytest.mark.parametrize("kind", ALL)
@pytest.mark.parametrize("events", [1, 10])
def test_events_are_as_many_rises_at_equal_intervals(kind: type[Schedule], events: int) -> None:
    schedule = kind(0.8, 0.2, 0.8, events=events)
    values = [schedule(step / 1525) for step in range(1526)]
    rises = [step / 1525 for step in range(1, 1526) if values[step] > values[step - 1]]
    assert len(rises) == (1 if kind is OneShot else events)
    assert values[-1] == 0.8
    if kind is not OneShot:
        assert rises == pytest.approx([0.2 + 0.6 * (k + 1) / events for k in range(events)], abs=1 / 1525)


def test_no_event_is_missed_by_a_rounding_error() -> None:
    schedule = Linear(0.5, 0.0, 1.0, events=10)
    assert [schedule(k / 10) for k in range(11)] == pytest.approx([0.05 * k for k in range(11)])


def test_a_mapping_gives_one_sparsity_for_every_glob() -> None:
    schedule = Linear({"encoder.*": 0.8, "head": 0.2}, 0.0, 1.0)
    assert schedule(0.5) == {"encoder.*": 0.4, "head": 0.1}


@given(
    st.sampled_from(ALL),
    st.floats(0, 0.999),
    st.floats(0, 1),
    st.floats(0, 1),
    st.one_of(st.none(), st.integers(1, 50)),
    st.lists(st.floats(0, 1), min_size=2, max_size=20),
)
def test_every_schedule_rises_from_zero_to_final_and_never_falls(
    kind: type[Schedule], final: float, one: float, other: float, events: int | None, progress: list[float]
) -> None:
    begin, end = sorted((one, other))
    schedule = kind(final, begin, end, events=events)
    values = [schedule(p) for p in sorted(progress)]
    assert all(isinstance(value, float) and 0 <= value <= final for value in values)
    assert values == sorted(values)
    assert schedule(end) == schedule(1.0) == final
    assert begin == end or schedule(begin) == 0.0


@pytest.mark.parametrize("kind", ALL)
def test_a_schedule_is_frozen_and_equal_to_its_like(kind: type[Schedule]) -> None:
    schedule = kind(0.5)
    with pytest.raises(FrozenInstanceError):
        schedule.final = 0.6  # type: ignore[misc]
    assert schedule == kind(0.5)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"final": 1.0}, ValueError, r"`final` must be in \[0, 1\), got 1\.0"),
        ({"final": -0.1}, ValueError, r"`final` must be in \[0, 1\)"),
        ({"final": math.nan}, ValueError, "got nan"),
        ({"final": "0.5"}, TypeError, r"`final` must be a number, got '0\.5'"),
        ({"final": {"a": 2}}, ValueError, r"`final\['a'\]` must be in"),
        ({"final": 0.5, "begin": 0.8, "end": 0.2}, ValueError, r"`begin` must not be after `end`.*0\.8.*0\.2"),
        ({"final": 0.5, "begin": -1}, ValueError, r"`begin` must be in \[0, 1\]"),
        ({"final": 0.5, "end": 2}, ValueError, r"`end` must be in \[0, 1\]"),
        ({"final": 0.5, "events": 0}, ValueError, "`events` must be at least 1"),
        ({"final": 0.5, "events": 2.5}, TypeError, "`events` must be a whole number"),
        ({"final": 0.5, "power": 0}, ValueError, "`power` must be above 0"),
        ({"final": 0.5, "power": math.inf}, ValueError, "`power` must be above 0 and finite"),
    ],
)
def test_a_bad_argument_is_named_with_its_value(options: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        Polynomial(**options)


@pytest.mark.parametrize("progress", [-0.1, 1.1, math.nan])
def test_progress_outside_its_range_is_an_error(progress: float) -> None:
    with pytest.raises(ValueError, match=r"`progress` must be"):
        Cubic(0.5)(progress)
