"""Checks of arguments, with uniform messages for a wrong type and for a value out of range."""

from __future__ import annotations

import math
from collections.abc import Iterable
from difflib import get_close_matches
from numbers import Integral, Real

import numpy as np

__all__ = [
    "check_choice",
    "check_flag",
    "check_number",
    "check_object",
    "check_whole",
    "counted",
    "listed",
    "suggestion",
]


def check_number(
    argument: str,
    value: object,
    *,
    at_least: float | None = None,
    above: float | None = None,
    at_most: float | None = None,
    below: float | None = None,
    meaning: str = "",
) -> float:
    """Check that a real number is inside its bounds; return it as a float.

    Args:
        argument: name of the argument, for the message.
        value: the argument; booleans are not numbers.
        at_least: inclusive lower bound.
        above: exclusive lower bound.
        at_most: inclusive upper bound.
        below: exclusive upper bound.
        meaning: the meaning of the number, for the message.

    Raises:
        TypeError: `value` is not a real number.
        ValueError: `value` is NaN or out of bounds.
    """
    if isinstance(value, bool) or not isinstance(value, (float, Real)):  # abstract classes are slow
        raise TypeError(f"`{argument}` must be a number, got {value!r}")
    number = float(value)
    if (
        math.isnan(number)
        or (at_least is not None and number < at_least)
        or (above is not None and number <= above)
        or (at_most is not None and number > at_most)
        or (below is not None and number >= below)
    ):
        bounds = _bounds(at_least, above, at_most, below) or "a number"
        raise ValueError(f"`{argument}` must be {bounds}{meaning and f', {meaning}'}, got {value!r}")
    return number


def check_whole(argument: str, value: object, *, at_least: int) -> int:
    """Check that a whole number is not too small; return it as an int.

    Args:
        argument: name of the argument, for the message.
        value: the argument; booleans and floats are not whole numbers.
        at_least: smallest allowed value.

    Raises:
        TypeError: `value` is not a whole number.
        ValueError: `value` is below `at_least`.
    """
    if isinstance(value, bool) or not isinstance(value, (int, Integral)):
        raise TypeError(f"`{argument}` must be a whole number, got {value!r}")
    if value < at_least:
        raise ValueError(f"`{argument}` must be at least {at_least}, got {value}")
    return int(value)


def check_flag(argument: str, value: object) -> bool:
    """Check that a value is True or False; return it.

    Raises:
        TypeError: `value` is neither. Numbers are not accepted.
    """
    if not isinstance(value, (bool, np.bool_)):  # faster than a union, which is built at every call
        raise TypeError(f"`{argument}` must be True or False, got {value!r}")
    return bool(value)


def check_object(argument: str, value: object) -> None:
    """Check that a value is an object and not its class.

    Raises:
        TypeError: `value` is a class.
    """
    if isinstance(value, type):
        raise TypeError(f"`{argument}` must be an object, got the class {value.__name__}; call it: {value.__name__}()")


def check_choice(argument: str, value: object, choices: Iterable[str]) -> str:
    """Check that a value is one of several names; return it.

    Raises:
        ValueError: `value` is none of them; the message suggests the nearest one.
    """
    names = tuple(choices)
    if not isinstance(value, str) or value not in names:
        allowed = ", ".join(map(repr, names))
        raise ValueError(f"`{argument}` must be one of {allowed}, got {value!r}{suggestion(value, names)}")
    return value


def counted(count: int, noun: str) -> str:
    """A number with its noun in the singular or in the plural with an s: "1 run", "2 runs"."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def listed(names: Iterable[str], most: int = 5) -> str:
    """The first names and the number of others: "a, b and 3 more"."""
    every = list(names)
    return ", ".join(every[:most]) + (f" and {len(every) - most} more" if len(every) > most else "")


def suggestion(value: object, choices: Iterable[str]) -> str:
    """The choice with the spelling nearest to `value`, as the end of a message; "" if none is close."""
    near = get_close_matches(str(value), list(choices), n=1)
    return f"; did you mean {near[0]!r}?" if near else ""


def _bounds(at_least: float | None, above: float | None, at_most: float | None, below: float | None) -> str:
    low = f"at least {at_least:g}" if at_least is not None else "" if above is None else f"above {above:g}"
    if below == math.inf:
        return f"{low} and finite"
    high = f"at most {at_most:g}" if at_most is not None else "" if below is None else f"below {below:g}"
    if not low or not high:
        return low or high
    left = f"({above:g}" if at_least is None else f"[{at_least:g}"
    right = f"{below:g})" if at_most is None else f"{at_most:g}]"
    return f"in {left}, {right}"
