"""Optimizer states of another shape than their parameter's: what is kept of them."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from gsprune.rewrite.optimizers.state_shapes import is_preconditioner, pattern_of_state

ROWS, COLUMNS = np.array([0, 2]), np.array([1, 3, 4])


def kept(
    shape: tuple[int, ...], full: tuple[int, ...], *, key: str = "moment", siblings: tuple[object, ...] = ()
) -> dict[int, list[int]] | None:
    found = pattern_of_state(torch.zeros(shape), torch.zeros(full), ((0, ROWS), (1, COLUMNS)), key, siblings)
    return None if found is None else {axis: keep.tolist() for axis, keep in found}


@pytest.mark.parametrize(
    ("shape", "full", "expected"),
    [
        ((4, 1), (4, 5), {0: [0, 2]}),
        ((1, 5), (4, 5), {1: [1, 3, 4]}),
        ((1, 1, 3), (4, 5, 3), {}),
        ((4,), (4, 5), {0: [0, 2]}),
        ((5,), (4, 5), {0: [1, 3, 4]}),
        ((5, 3), (4, 5, 3), {0: [1, 3, 4]}),
        ((20,), (4, 5), {0: [1, 3, 4, 11, 13, 14]}),
        ((4, 10), (4, 5, 2), {0: [0, 2], 1: [2, 3, 6, 7, 8, 9]}),
        ((4, 5), (4, 5, 1, 1), {0: [0, 2], 1: [1, 3, 4]}),
    ],
)
def test_averages_and_copies_in_other_shapes_keep_what_the_parameter_keeps(
    shape: tuple[int, ...], full: tuple[int, ...], expected: dict[int, list[int]]
) -> None:
    assert kept(shape, full) == expected


@pytest.mark.parametrize(("shape", "full"), [((7,), (4, 5)), ((4, 4), (4, 5)), ((5, 4), (4, 5)), ((2, 10), (4, 5))])
def test_shapes_that_do_not_follow_have_no_pattern(shape: tuple[int, ...], full: tuple[int, ...]) -> None:
    assert kept(shape, full) is None


def test_of_a_square_parameter_only_a_name_tells_the_axis() -> None:
    assert kept((5,), (5, 5)) is None
    assert kept((5,), (5, 5), key="exp_avg_sq_row") == {0: [0, 2]}
    assert kept((5,), (5, 5), key="exp_avg_sq_col") == {0: [1, 3, 4]}
    assert kept((5, 5, 3), (5, 5, 3, 3), key="exp_avg_sq_row") == {0: [0, 2], 1: [1, 3, 4]}


def test_scales_of_quantised_blocks_are_not_taken_for_averages() -> None:
    codes = torch.zeros(4, 5, dtype=torch.uint8)
    assert kept((4,), (4, 5), siblings=(codes,)) is None
    assert kept((4,), (4, 5), siblings=(codes.bool(), 3, torch.zeros((), dtype=torch.int64))) == {0: [0, 2]}


def test_what_mixes_the_channels_of_a_square_matrix_is_told_from_moments() -> None:
    matrix = torch.randn(6, 6, generator=torch.Generator().manual_seed(0)) * 1e-12
    assert not is_preconditioner(matrix)
    assert not is_preconditioner(torch.full((6, 6), 0.1))
    for other in (matrix @ matrix.mT, matrix.triu(), matrix.tril(), torch.eye(6)):
        assert is_preconditioner(other)
