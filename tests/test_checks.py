"""A bad argument is an error that names argument, value and constraint."""

from __future__ import annotations

import math
import re
from typing import Any

import numpy as np
import pytest

from gsprune.checks import check_choice, check_flag, check_number, check_whole, counted


@pytest.mark.parametrize(
    ("value", "bounds", "message"),
    [
        (-1, {"at_least": 0}, "`x` must be at least 0, got -1"),
        (0, {"above": 0}, "`x` must be above 0, got 0"),
        (2, {"at_most": 1}, "`x` must be at most 1, got 2"),
        (1.0, {"at_least": 0, "below": 1}, "`x` must be in [0, 1), got 1.0"),
        (1.5, {"at_least": 0, "at_most": 1}, "`x` must be in [0, 1], got 1.5"),
        (0, {"above": 0, "below": 0.5}, "`x` must be in (0, 0.5), got 0"),
        (math.inf, {"above": 0, "below": math.inf}, "`x` must be above 0 and finite, got inf"),
        (math.nan, {}, "`x` must be a number, got nan"),
        (3, {"at_most": 1, "meaning": "a fraction"}, "`x` must be at most 1, a fraction, got 3"),
    ],
)
def test_a_number_out_of_bounds_is_refused(value: float, bounds: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        check_number("x", value, **bounds)


@pytest.mark.parametrize("value", [True, "1", None, [1.0]])
def test_what_is_no_number_is_refused(value: object) -> None:
    with pytest.raises(TypeError, match=r"^`x` must be a number, got"):
        check_number("x", value, at_least=0, at_most=1)
    with pytest.raises(TypeError, match=r"^`n` must be a whole number, got"):
        check_whole("n", value, at_least=1)


def test_good_values_come_back_as_plain_numbers() -> None:
    assert type(check_number("x", np.float32(0.5), at_least=0)) is float
    assert type(check_whole("n", np.int64(3), at_least=1)) is int
    assert check_flag("f", np.bool_(True)) is True
    assert check_choice("c", "two", ("one", "two")) == "two"


def test_whole_numbers_flags_and_choices_are_checked() -> None:
    with pytest.raises(ValueError, match=r"^`n` must be at least 1, got 0$"):
        check_whole("n", 0, at_least=1)
    with pytest.raises(TypeError, match=r"whole number, got 1\.0$"):
        check_whole("n", 1.0, at_least=1)
    with pytest.raises(TypeError, match=r"^`f` must be True or False, got 1$"):
        check_flag("f", 1)
    with pytest.raises(ValueError, match=r"^`c` must be one of 'mean', 'max', got 'maen'; did you mean 'mean'?"):
        check_choice("c", "maen", ("mean", "max"))


@pytest.mark.parametrize(("count", "text"), [(0, "0 runs"), (1, "1 run"), (2, "2 runs"), (1000, "1000 runs")])
def test_a_noun_follows_its_number(count: int, text: str) -> None:
    assert counted(count, "run") == text
