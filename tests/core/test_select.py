from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

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
    kept = backend.select(np.array(scores, dtype=np.float32), keep)
    assert kept.tolist() == expected
    assert kept.dtype == np.int64


@given(st.lists(st.sampled_from([-2.0, -0.0, 0.0, 0.5, 1.0, 1e30]) | st.floats(width=32, allow_nan=False)))
def test_the_core_chooses_as_the_definition_does(scores: list[float]) -> None:
    array = np.array(scores, dtype=np.float32)
    for keep in {0, len(array) // 3, len(array)}:
        chosen = [backend.select(array, keep).tolist() for backend in PROVIDERS]
        assert chosen[0] == chosen[1]


@pytest.mark.parametrize("backend", PROVIDERS, ids=lambda b: b.name)
def test_a_score_without_rank_and_an_impossible_number_are_refused(backend: Backend) -> None:
    with pytest.raises(ValueError, match="NaN"):
        backend.select(np.array([1.0, np.nan], dtype=np.float32), 1)
    for keep in (-1, 3):
        with pytest.raises(ValueError, match=f"`keep` must lie in .*got {keep}"):
            backend.select(np.ones(2, dtype=np.float32), keep)
