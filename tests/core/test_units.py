"""Gathering sums into units, reducing members, removing units: the core against NumPy, and wrong arguments."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from by_group import REDUCE
from hypothesis import given
from hypothesis import strategies as st

from gsprune import _core


def flat(seed: int) -> dict[str, np.ndarray]:
    """Some groups, some of them empty, and vectors in which every position is a unit's or nobody's.

    Vectors are random, or runs of units that follow each other across the bounds of groups, or of one unit repeated.
    """
    rng = np.random.default_rng(seed)
    first_unit = np.concatenate([[0], np.cumsum(rng.integers(0, 6, size=rng.integers(1, 5)))])
    lengths = rng.integers(0, 9, size=rng.integers(1, 6))
    starts = np.concatenate([[0], np.cumsum(lengths)])
    nobody = int(first_unit[-1])
    makers = (
        lambda size: rng.integers(0, nobody + 1, size=size),
        lambda size: np.minimum(rng.integers(0, nobody + 1) + np.arange(size), nobody),
        lambda size: np.minimum(rng.integers(0, nobody + 1) + np.arange(size) // 3, nobody),
    )
    vectors = [makers[rng.integers(3)](length) for length in lengths]
    return {"first_unit": first_unit, "ids": np.concatenate(vectors).astype(np.int64), "starts": starts}


@given(st.integers(0, 2**16))
def test_what_stays_is_renumbered_and_told_per_vector(seed: int) -> None:
    units = flat(seed)
    keep = np.random.default_rng(seed).random(units["first_unit"][-1]) < 0.6
    alive = np.insert(np.ones(len(keep), bool), np.random.default_rng(seed).integers(0, len(keep) + 1, size=5), False)
    left, first_unit, ids, starts, keeps = _core.units.shrink_units(keep, alive, **units)
    expected_left = alive.copy()
    expected_left[alive] = keep
    assert left.tolist() == expected_left.tolist()
    stays = np.append(keep, True)
    number = np.cumsum(stays) - 1
    assert first_unit.tolist() == np.append(0, np.cumsum(keep))[units["first_unit"]].tolist()
    assert ids.tolist() == number[units["ids"]][stays[units["ids"]]].tolist()
    for vector, kept in enumerate(keeps):
        old = units["ids"][units["starts"][vector] : units["starts"][vector + 1]]
        expected = np.flatnonzero(stays[old])
        assert (np.arange(len(old)) if kept is None else kept).tolist() == expected.tolist()
        assert starts[vector + 1] - starts[vector] == len(expected)


@given(st.integers(0, 2**16))
def test_every_position_adds_to_its_unit(seed: int) -> None:
    units, rng = flat(seed), np.random.default_rng(seed)
    num_groups = len(units["first_unit"]) - 1
    vectors = rng.integers(0, len(units["starts"]) - 1, size=4)
    members = rng.integers(0, 4, size=num_groups)
    slots = np.array([[rng.integers(0, max(1, m)) for m in members] for _ in vectors]).reshape(len(vectors), num_groups)
    sums = [rng.normal(size=units["starts"][v + 1] - units["starts"][v]) for v in vectors]
    gathered = _core.units.gather_units(np.concatenate(sums), vectors, slots, members, **units)
    widths = np.diff(units["first_unit"])
    expected = [np.zeros((m, w)) for m, w in zip(members, widths, strict=True)]
    for axis, vector in enumerate(vectors):
        for value, unit in zip(sums[axis], units["ids"][units["starts"][vector] :], strict=False):
            group = int(np.searchsorted(units["first_unit"], unit, side="right")) - 1
            if unit < units["first_unit"][-1] and members[group]:
                expected[group][slots[axis, group], unit - units["first_unit"][group]] += value
    assert gathered.tolist() == np.concatenate([block.ravel() for block in expected]).tolist()


@pytest.mark.parametrize("reduction", _core.units.REDUCTIONS)
@given(seed=st.integers(0, 2**16))
def test_all_groups_are_reduced_as_one_group_is(reduction: str, seed: int) -> None:
    rng = np.random.default_rng(seed)
    widths, members = rng.integers(0, 20, size=(2, rng.integers(1, 6)))
    first_unit = np.concatenate([[0], np.cumsum(widths)])
    blocks = [rng.normal(size=(m, w)) * 10.0 ** rng.integers(-20, 20) for m, w in zip(members, widths, strict=True)]
    if seed % 3 == 0 and blocks[0].size:
        blocks[0].flat[rng.integers(blocks[0].size)] = rng.choice([np.nan, np.inf])
    got = _core.units.reduce_members(np.concatenate([b.ravel() for b in blocks]), members, first_unit, reduction)
    assert got.dtype == np.float64
    expected = [REDUCE[reduction](b) if len(b) else np.zeros(b.shape[1]) for b in blocks]
    with np.errstate(all="ignore"):  # NumPy adds the members of a single unit in another order
        np.testing.assert_array_equal(got.astype(np.float32), np.concatenate(expected).astype(np.float32))


def test_members_that_do_not_fit_are_refused_by_name() -> None:
    good = {"statistics": np.zeros(6), "members": np.array([2]), "first_unit": np.array([0, 3]), "reduction": "mean"}
    assert _core.units.reduce_members(**good).tolist() == [0.0] * 3
    for wrong, message in (
        ({"statistics": np.zeros(5)}, "`statistics` must have 6 entries, got 5"),
        ({"members": np.array([-1])}, "`members` must be >= 0"),
        ({"members": np.array([1, 1])}, "`members` must have 1 entries, got 2"),
        ({"first_unit": np.array([1, 3])}, "`first_unit` must begin at 0"),
        ({"reduction": "meen"}, "`reduction` must be 'mean', 'sum'"),
    ):
        with pytest.raises(ValueError, match=message):
            _core.units.reduce_members(**(good | wrong))


@pytest.mark.parametrize(
    ("argument", "value", "message"),
    [
        ("first_unit", np.array([1, 3]), "`first_unit` must begin at 0 and not decrease"),
        ("first_unit", np.array([], dtype=np.int64), "`first_unit` must begin at 0"),
        ("starts", np.array([0, 3, 2]), "`starts` must begin at 0 and not decrease"),
        ("ids", np.array([0, 1, 4]), r"`ids\[2\]` must lie in \[0, 3\], the number of units, got 4"),
        ("ids", np.array([0, 1]), "`ids` must have 3 entries, got 2"),
        ("keep", np.ones(2, dtype=bool), "`keep` must have 3 entries, got 2"),
        ("alive", np.ones(2, dtype=bool), "`alive` must hold as many units as `keep`, 3"),
        ("alive", np.ones(4, dtype=bool), "`alive` must hold as many units as `keep`, 3"),
        ("alive", np.ones((3, 1), dtype=bool), "`alive` must have one dimension, got 2"),
        ("sums", np.zeros(2), "`sums` must have 3 entries, got 2"),
        ("vectors", np.array([1]), r"`vectors\[0\]` must lie in \[0, 1\), got 1"),
        ("slots", np.array([[1]]), r"`slots` must lie in \[0, members\) of their group, got 1"),
        ("slots", np.array([0]), "`slots` must have a row per axis and a column per group"),
        ("members", np.array([-1]), "`members` must be >= 0"),
    ],
)
def test_wrong_arguments_are_refused_by_name(argument: str, value: Any, message: str) -> None:
    units: dict[str, Any] = {"first_unit": np.array([0, 3]), "ids": np.array([0, 1, 2]), "starts": np.array([0, 3])}
    keep: dict[str, Any] = {"keep": np.ones(3, dtype=bool), "alive": np.ones(3, dtype=bool)}
    sums: dict[str, Any] = {
        "sums": np.zeros(3),
        "vectors": np.array([0]),
        "slots": np.array([[0]]),
        "members": np.array([1]),
    }
    for arguments in (units, keep, sums):
        if argument in arguments:
            arguments[argument] = value
    if argument not in sums:
        with pytest.raises(ValueError, match=message):
            _core.units.shrink_units(**keep, **units)
    if argument not in keep:
        with pytest.raises(ValueError, match=message):
            _core.units.gather_units(**sums, **units)


def test_arrays_of_another_type_are_refused() -> None:
    with pytest.raises(TypeError):
        _core.units.shrink_units(
            np.ones(3),  # type: ignore[arg-type]
            np.ones(3, dtype=bool),
            np.array([0, 3]),
            np.array([0, 1, 2]),
            np.array([0, 3]),
        )
