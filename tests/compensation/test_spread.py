"""Spread positions: one of each part, by the seed alone."""

from __future__ import annotations

import numpy as np
import pytest

from gsprune.compensation.spread import spread, spread_apart


@pytest.mark.parametrize(("count", "total"), [(4, 100), (7, 100), (64, 65)])
def test_each_part_of_the_range_has_one_position(count: int, total: int) -> None:
    positions = spread(count, total, (1, 2))
    edges = np.arange(count + 1) * total / count
    assert (np.floor(edges[:-1]) <= positions).all()
    assert (positions < edges[1:]).all()


def test_a_range_that_is_no_longer_is_taken_whole() -> None:
    assert spread(5, 5, (0,)).tolist() == [0, 1, 2, 3, 4]
    assert spread(5, 3, (0,)).tolist() == [0, 1, 2]


def test_a_stride_does_not_always_hit_the_same_column() -> None:
    assert len(set(spread(64, 64 * 16, (0,)) % 16)) > 8


def test_the_seed_alone_decides() -> None:
    assert np.array_equal(spread(9, 1000, (3, 1)), spread(9, 1000, (3, 1)))
    assert not np.array_equal(spread(9, 1000, (3, 1)), spread(9, 1000, (3, 2)))


@pytest.mark.parametrize(("count", "total", "taken"), [(10, 100, 30), (10, 100, 95), (10, 100, 0), (10, 12, 12)])
def test_positions_apart_are_spread_over_those_that_are_not_taken(count: int, total: int, taken: int) -> None:
    seed = (3, 1)
    positions = spread_apart(count, total, seed, taken)
    occupied = set(spread(taken, total, seed).tolist()) if taken else set()
    assert len(positions) == min(count, total - len(occupied))
    assert len(set(positions.tolist()) - occupied) == len(positions)
    if len(positions) == count:
        assert positions[0] < total / 4
        assert positions[-1] > total * 3 / 4
