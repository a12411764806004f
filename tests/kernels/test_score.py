"""The sums of the Triton kernels equal the plain-torch definition, whatever the layout, dtype or width."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from gsprune.kernels import reference

pytest.importorskip("triton")

from gsprune.kernels import score
from gsprune.kernels.launch import Launch

DTYPES = (torch.float32, torch.float64, torch.bfloat16, torch.float16)
CASES = [
    ((1,), (0,)),
    ((100,), (0,)),
    ((1, 7), (0, 1)),
    ((7, 63), (0, 1)),
    ((64, 65), (0, 1)),
    ((7, 64), (1,)),
    ((100, 7), (0,)),
    ((130, 5), (0, 1)),  # covered by tall tiles
    ((1, 300), (1,)),
    ((7, 1, 3, 3), (0,)),
    ((7, 63, 3, 3), (0, 1)),
    ((5, 4, 1, 1), (0, 1)),
    ((3, 6, 8), (1, 2)),  # something lies before the first axis
    ((4, 3, 6, 7), (1, 3)),  # and between both
]


def draw(shape: tuple[int, ...], dtype: torch.dtype, device: torch.device, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype).to(device)


def axis_sums(
    pairs: list[tuple[Tensor, Tensor | None]], axes: list[tuple[int, ...]], statistic: str
) -> tuple[list[tuple[np.ndarray, ...]], list[Launch]]:
    """The vectors of every pair, and what was launched."""
    tensors, others = [weight for weight, _ in pairs], [gradient for _, gradient in pairs]
    flat, launches = score.sums(tensors, axes, others, statistic)
    lengths = [tensor.shape[axis] for tensor, wanted in zip(tensors, axes, strict=True) for axis in wanted]
    assert flat.shape == (sum(lengths),)
    vectors = iter(np.split(flat, np.cumsum(lengths)[:-1]))
    return [tuple(next(vectors) for _ in wanted) for wanted in axes], launches


def paths_of(launch: Launch) -> set[str]:
    """The branches that the jobs of a launch of `score_kernel` took."""
    rows = launch.table[: launch.jobs * 11].reshape(launch.jobs, 11)
    paths = {("float32", "float64", "bfloat16", "float16")[row[3]] for row in rows}
    paths |= {"down" if row[7] > 1 else "single" for row in rows}
    paths |= {("wide", "narrow")[row[8]] for row in rows}
    return paths | {
        name for row in rows for name, start in zip(("rows", "columns"), row[9:], strict=True) if start >= 0
    }


def assert_sums(
    found: tuple[np.ndarray, ...], tensor: Tensor, axes: tuple[int, ...], other: Tensor | None, statistic: str
) -> None:
    other = None if other is None else other.cpu()
    expected = reference.axis_sums(tensor.cpu(), axes, other, statistic)
    assert len(found) == len(axes)
    for vector, wanted in zip(found, expected, strict=True):
        assert vector.dtype == np.float64
        np.testing.assert_allclose(vector, wanted.numpy(), rtol=1e-12, atol=1e-12)


@pytest.mark.usefixtures("poisoned")
@pytest.mark.parametrize("statistic", score.STATISTIC_CODES)
def test_one_launch_sums_every_tensor_as_the_definition_does(statistic: str, device: torch.device) -> None:
    pairs, axes = [], []
    for index, (shape, wanted) in enumerate(CASES):
        dtype = DTYPES[index % len(DTYPES)]
        weight, gradient = draw(shape, dtype, device, index), draw(shape, dtype, device, 100 + index)
        pairs.append((weight, gradient))
        axes.append(wanted)
        if len(shape) == 4:
            pairs.append(tuple(t.to(memory_format=torch.channels_last) for t in (weight, gradient)))
            axes.append(wanted)
        elif len(shape) == 2:
            pairs.append((weight.T.contiguous().T, gradient.T.contiguous().T))
            axes.append(wanted)
    if statistic in ("abs", "square"):
        pairs = [(weight, None) for weight, _ in pairs]
    sums, launches = axis_sums(pairs, axes, statistic)
    for found, (weight, gradient), wanted in zip(sums, pairs, axes, strict=True):
        assert_sums(found, weight, wanted, gradient, statistic)
    assert [launch.kernel for launch in launches] == ["score", "fold"]
    assert launches[0].jobs == len(pairs)
    names = {"float32", "float64", "bfloat16", "float16"}
    assert paths_of(launches[0]) == {"wide", "narrow", "rows", "columns", "single"} | names


@pytest.mark.parametrize("dtype", DTYPES)
def test_small_integers_are_summed_without_any_rounding(dtype: torch.dtype, device: torch.device) -> None:
    weight = torch.randint(-3, 4, (65, 7, 3, 3), generator=torch.Generator().manual_seed(0)).to(dtype).to(device)
    sums, _ = axis_sums([(weight, None)], [(0, 1)], "abs")
    for vector, wanted in zip(sums[0], reference.axis_sums(weight.cpu(), (0, 1), None, "abs"), strict=True):
        assert np.array_equal(vector, wanted.numpy())


def test_scores_of_an_orthogonal_weight_select_what_the_definition_selects(device: torch.device) -> None:
    # All squared norms are equal but for rounding: the hardest case to choose alike in.
    weights = []
    for seed in range(3):
        torch.manual_seed(seed)
        weights.append(torch.nn.init.orthogonal_(torch.empty(32, 96)).to(device))
    sums, _ = axis_sums([(weight, None) for weight in weights], [(0, 1)] * 3, "square")
    for vectors, weight in zip(sums, weights, strict=True):
        wanted = reference.axis_sums(weight.cpu(), (0, 1), None, "square")
        for vector, expected in zip(vectors, wanted, strict=True):
            ours, theirs = torch.from_numpy(vector).float(), expected.float()
            for keep in range(1, len(ours)):
                assert torch.equal(reference.select(ours, keep), reference.select(theirs, keep))


@pytest.mark.usefixtures("poisoned")
def test_a_large_list_goes_down_several_tiles_per_program(
    device: torch.device, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(score, "_BUSY_TILES", 2)
    tensors = [draw((150, 65), torch.float32, device, 0), draw((300, 3), torch.float32, device, 1)]
    sums, launches = axis_sums([(tensor, None) for tensor in tensors], [(0, 1), (0, 1)], "abs")
    assert "down" in paths_of(launches[0])
    for found, tensor in zip(sums, tensors, strict=True):
        assert_sums(found, tensor, (0, 1), None, "abs")


def test_a_gradient_of_another_layout_is_read_at_the_right_places(device: torch.device) -> None:
    weight = draw((6, 5, 3, 3), torch.float32, device, 0).to(memory_format=torch.channels_last)
    gradient = draw((6, 5, 3, 3), torch.float32, device, 1)
    sums, _ = axis_sums([(weight, gradient)], [(0, 1)], "abs_product")
    assert_sums(sums[0], weight, (0, 1), gradient, "abs_product")


def test_views_with_gaps_and_overlaps_are_summed_like_any_tensor(device: torch.device) -> None:
    whole = draw((8, 10, 6), torch.float32, device, 0)
    views = [whole[::2, 1:8, 3], whole[:, :, :1].expand(8, 10, 6)[0]]
    sums, _ = axis_sums([(view, None) for view in views], [(0, 1), (0, 1)], "square")
    for found, view in zip(sums, views, strict=True):
        assert_sums(found, view, (0, 1), None, "square")


def test_three_axes_take_two_reads_in_the_same_launch(device: torch.device) -> None:
    tensor = draw((5, 6, 7), torch.float64, device, 0)
    sums, launches = axis_sums([(tensor, None)], [(2, 0, 1)], "abs")
    assert_sums(sums[0], tensor, (2, 0, 1), None, "abs")
    assert launches[0].jobs == 2


def test_a_nan_and_an_infinity_reach_their_own_sums_alone(device: torch.device) -> None:
    tensor = draw((9, 8), torch.float32, device, 0)
    tensor[3, 2] = float("nan")
    tensor[5, 6] = float("inf")
    sums, _ = axis_sums([(tensor, None)], [(0, 1)], "abs")
    assert np.flatnonzero(np.isnan(sums[0][0])).tolist() == [3]
    assert np.flatnonzero(np.isnan(sums[0][1])).tolist() == [2]
    assert np.flatnonzero(np.isinf(sums[0][0])).tolist() == [5]
    assert np.flatnonzero(np.isinf(sums[0][1])).tolist() == [6]


def test_the_same_call_twice_gives_the_same_bits(device: torch.device) -> None:
    tensor = draw((33, 65), torch.float32, device, 0)
    first, _ = axis_sums([(tensor, None)], [(0, 1)], "abs")
    second, _ = axis_sums([(tensor, None)], [(0, 1)], "abs")
    assert all(np.array_equal(a, b) for a, b in zip(first[0], second[0], strict=True))


def test_no_jobs_launch_nothing(device: torch.device) -> None:
    assert axis_sums([], [], "abs") == ([], [])


def test_a_tile_beyond_two_to_the_31_elements_is_read_where_it_is(device: torch.device) -> None:
    # Only the pages of this one tile are ever touched. The program of a job that seems to begin at -K is its K-th.
    columns, tile_row = 128, 2**22 + 5
    rows = (tile_row + 1) * 4
    weight = torch.empty(rows * columns, dtype=torch.bfloat16, device=device)
    tile = weight[-4 * columns :].copy_(torch.arange(4 * columns) % 7)
    job = [-tile_row, weight.data_ptr(), 0, 2, rows, columns, 1, 1, 0, -1, 0]
    owners = [0]
    table = torch.tensor(job + owners, dtype=torch.int64, device=device)
    partials = torch.empty((tile_row + 1) * columns, dtype=torch.float64, device=device)
    assert weight.numel() > 2**31
    code = score.STATISTIC_CODES["abs"]
    score.score_kernel[(1,)](table, partials, len(job), code, num_warps=score.SCORE_WARPS, enable_fp_fusion=False)
    expected = tile.double().reshape(4, columns).sum(0)
    assert torch.equal(partials[-columns:].cpu(), expected.cpu())
