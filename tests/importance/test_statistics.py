"""Sums added to their units, and reduced members, against loops."""

from __future__ import annotations

from itertools import pairwise
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from by_group import REDUCE
from hypothesis import given
from hypothesis import strategies as st

from gsprune.importance.statistics import REDUCTIONS, FlatStatistics, SummedAxes, _added_to_units


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


def structure_of(first_unit: np.ndarray) -> Any:
    """The parts of a structure that reductions read."""
    spans = [(SimpleNamespace(name=f"group {i}"), first, last) for i, (first, last) in enumerate(pairwise(first_unit))]
    return SimpleNamespace(num_units=first_unit[-1], spans=lambda: spans)


@given(st.integers(0, 2**16))
def test_every_position_adds_to_its_unit(seed: int) -> None:
    units, rng = flat(seed), np.random.default_rng(seed)
    num_groups = len(units["first_unit"]) - 1
    vectors = rng.integers(0, len(units["starts"]) - 1, size=4)
    members = rng.integers(0, 4, size=num_groups)
    slots = np.array([[rng.integers(0, max(1, m)) for m in members] for _ in vectors]).reshape(len(vectors), num_groups)
    sums = [rng.normal(size=units["starts"][v + 1] - units["starts"][v]) for v in vectors]
    summed = SummedAxes([], [], vectors, slots, members)
    gathered = _added_to_units(np.concatenate(sums), summed, SimpleNamespace(**units))  # type: ignore[arg-type]
    widths = np.diff(units["first_unit"])
    expected = [np.zeros((m, w)) for m, w in zip(members, widths, strict=True)]
    for axis, vector in enumerate(vectors):
        for value, unit in zip(sums[axis], units["ids"][units["starts"][vector] :], strict=False):
            group = int(np.searchsorted(units["first_unit"], unit, side="right")) - 1
            if unit < units["first_unit"][-1] and members[group]:
                expected[group][slots[axis, group], unit - units["first_unit"][group]] += value
    assert gathered.tolist() == np.concatenate([block.ravel() for block in expected]).tolist()


@pytest.mark.parametrize("reduction", REDUCTIONS)
@given(seed=st.integers(0, 2**16))
def test_all_groups_are_reduced_as_one_group_is(reduction: str, seed: int) -> None:
    rng = np.random.default_rng(seed)
    widths, members = rng.integers(0, 20, size=(2, rng.integers(1, 6)))
    first_unit = np.concatenate([[0], np.cumsum(widths)])
    blocks = [rng.normal(size=(m, w)) * 10.0 ** rng.integers(-20, 20) for m, w in zip(members, widths, strict=True)]
    if seed % 3 == 0 and blocks[0].size:
        blocks[0].flat[rng.integers(blocks[0].size)] = rng.choice([np.nan, np.inf])
    structure = structure_of(first_unit)
    with np.errstate(all="ignore"):
        got = FlatStatistics(np.concatenate([b.ravel() for b in blocks]), members, structure).reduced(reduction)
    assert got.dtype == np.float64
    expected = [REDUCE[reduction](b) if len(b) else np.zeros(b.shape[1]) for b in blocks]
    with np.errstate(all="ignore"):  # NumPy adds the members of a single unit in another order
        np.testing.assert_array_equal(got.astype(np.float32), np.concatenate(expected).astype(np.float32))
