"""Reductions and normalizers as tables, and what makes them deterministic."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gsprune.importance.normalizers import NORMALIZERS
from gsprune.importance.statistics import REDUCTIONS

STATISTICS = np.array([[1.0, 4.0, 0.0], [3.0, 2.0, 0.0]])

REDUCED = {
    "mean": [2.0, 3.0, 0.0],
    "sum": [4.0, 6.0, 0.0],
    "max": [3.0, 4.0, 0.0],
    "prod": [3.0, 8.0, 0.0],
    "first": [1.0, 4.0, 0.0],
}

SCORES = np.array([1.0, 3.0, 4.0, 0.0])

NORMALIZED = {
    "none": [1.0, 3.0, 4.0, 0.0],
    "sum": [1 / 8, 3 / 8, 4 / 8, 0.0],
    "mean": [1 / 2, 3 / 2, 4 / 2, 0.0],
    "max": [1 / 4, 3 / 4, 1.0, 0.0],
    "standardization": [1 / 4, 3 / 4, 1.0, 0.0],
    "gaussian": ((SCORES - 2.0) / np.sqrt(10 / 3)).tolist(),
    "lamp": [1 / 8, 3 / 7, 4 / 4, 0.0],
}


@pytest.mark.parametrize("name", REDUCTIONS)
def test_reduction(name: str) -> None:
    assert REDUCTIONS[name](STATISTICS).tolist() == REDUCED[name]


@pytest.mark.parametrize("name", NORMALIZERS)
def test_normalizer(name: str) -> None:
    assert NORMALIZERS[name](SCORES) == pytest.approx(NORMALIZED[name], abs=1e-9)


def test_lamp_gives_equal_scores_to_the_lower_index_the_higher_rank() -> None:
    assert NORMALIZERS["lamp"](np.array([2.0, 2.0, 2.0])) == pytest.approx([1.0, 1 / 2, 1 / 3])


@pytest.mark.parametrize("name", NORMALIZERS)
@pytest.mark.parametrize("scores", [np.zeros(3), np.array([5.0]), np.zeros(1)], ids=["zeros", "one", "one zero"])
def test_degenerate_groups_stay_finite(name: str, scores: np.ndarray) -> None:
    assert np.isfinite(NORMALIZERS[name](scores)).all()


@pytest.mark.parametrize("name", sorted(set(NORMALIZERS) - {"lamp"}))
def test_scores_that_differ_by_rounding_noise_come_out_equal_in_float32(name: str) -> None:
    equal = 1.0 + 1e-15 * np.array([0.0, 3.0, -2.0, 1.0])
    assert len(set(NORMALIZERS[name](equal).astype(np.float32).tolist())) == 1
    with_another = np.append(equal, 7.0)
    assert len(set(NORMALIZERS[name](with_another)[:4].astype(np.float32).tolist())) == 1


@pytest.mark.parametrize("name", NORMALIZERS)
@given(st.lists(st.floats(0, 1e6), min_size=1, max_size=30))
def test_normalizers_keep_the_order_within_a_group(name: str, values: list[float]) -> None:
    scores = np.array(values)
    normalized = NORMALIZERS[name](scores)
    order = np.argsort(scores, kind="stable")
    rising = np.diff(normalized[order])
    # Equal scores may come out in any order under "lamp", which ranks them by index.
    assert (rising[np.diff(scores[order]) > 1e-6 * scores.max()] >= -1e-12).all()
