from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from by_group import select_one
from hypothesis import given
from hypothesis import strategies as st

from gsprune import _core
from gsprune.backends import Backend, CppBackend, TorchBackend

PROVIDERS = (CppBackend(), TorchBackend())


@pytest.mark.parametrize("backend", PROVIDERS, ids=lambda b: b.name)
@pytest.mark.parametrize(
    ("scores", "keep", "expected"),
    [
        ([3, 1, 2], 2, [0, 2]),
        ([1, 1, 1, 1], 2, [0, 1]),
        ([0, 5, 5, 5], 2, [1, 2]),
        ([2, 1, 1, 3], 3, [0, 1, 3]),
        ([-1, -3, -2], 1, [0]),
        ([-0.0, 0.0, -0.0], 1, [0]),
        ([0.0, -0.0, 1.0], 2, [0, 2]),
        ([float("inf"), 1, float("-inf")], 2, [0, 1]),
        ([1e-45, 0.0, -1e-45], 2, [0, 1]),
        ([1, 2], 0, []),
        ([1, 2], 2, [0, 1]),
        ([], 0, []),
    ],
)
def test_the_highest_are_kept_and_ties_go_to_the_lower_index(
    backend: Backend, scores: list[float], keep: int, expected: list[int]
) -> None:
    kept = select_one(backend, np.array(scores, dtype=np.float32), keep)
    assert kept.tolist() == expected
    assert kept.dtype == np.int64


@given(st.lists(st.sampled_from([-2.0, -0.0, 0.0, 0.5, 1.0, 1e30]) | st.floats(width=32, allow_nan=False)))
def test_the_core_chooses_as_the_definition_does(scores: list[float]) -> None:
    array = np.array(scores, dtype=np.float32)
    for keep in {0, len(array) // 3, len(array)}:
        chosen = [select_one(backend, array, keep).tolist() for backend in PROVIDERS]
        assert chosen[0] == chosen[1]


@pytest.mark.parametrize("backend", PROVIDERS, ids=lambda b: b.name)
def test_a_score_without_rank_and_an_impossible_number_are_refused(backend: Backend) -> None:
    with pytest.raises(ValueError, match="NaN"):
        select_one(backend, np.array([1.0, np.nan], dtype=np.float32), 1)
    for keep in (-1, 3):
        with pytest.raises(ValueError, match=rf"`kept\[0\]` must lie in .*got {keep}"):
            select_one(backend, np.ones(2, dtype=np.float32), keep)


@pytest.mark.parametrize("backend", PROVIDERS, ids=lambda b: b.name)
@given(seed=st.integers(0, 2**16))
def test_all_groups_at_once_choose_as_each_alone(backend: Backend, seed: int) -> None:
    rng = np.random.default_rng(seed)
    widths = rng.integers(0, 40, size=rng.integers(0, 5))
    first_unit = np.concatenate([[0], np.cumsum(widths)]).astype(np.int64)
    scores = rng.integers(-3, 4, size=first_unit[-1]).astype(np.float32)  # many ties
    kept = rng.integers(0, widths + 1).astype(np.int64)
    keep = backend.select_groups(scores, first_unit, kept)
    assert keep.dtype == bool
    for (first, last), count in zip(pairwise(first_unit.tolist()), kept.tolist(), strict=True):
        assert np.flatnonzero(keep[first:last]).tolist() == select_one(backend, scores[first:last], count).tolist()


def _arguments(changes: dict[str, Any], **good: Any) -> dict[str, Any]:
    return good | changes


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"scores": np.zeros(2, np.float32)}, "`scores` must have 3 entries, got 2"),
        ({"scores": np.array([1, np.nan, 2], np.float32)}, r"`scores\[1\]` is NaN"),
        ({"first_unit": np.array([1, 3])}, "`first_unit` must begin at 0"),
        ({"first_unit": np.array([0, 3, 2])}, "`first_unit` must begin at 0 and not decrease"),
        ({"kept": np.array([4])}, r"`kept\[0\]` must lie in \[0, 3\], the units of the group, got 4"),
        ({"kept": np.array([-1])}, r"`kept\[0\]` must lie in"),
        ({"kept": np.array([1, 1])}, "`kept` must have 1 entries, got 2"),
    ],
)
def test_groups_that_do_not_fit_are_refused_by_name(changes: dict[str, Any], message: str) -> None:
    arguments = _arguments(changes, scores=np.ones(3, np.float32), first_unit=np.array([0, 3]), kept=np.array([2]))
    with pytest.raises(ValueError, match=message):
        _core.select.select_groups(**arguments)
