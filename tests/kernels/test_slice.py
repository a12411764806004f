"""The slices of the Triton kernel equal the plain-torch definition bit for bit."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
import torch
from torch import Tensor

from gsprune.kernels import reference

pytest.importorskip("triton")

from gsprune import _core
from gsprune.kernels import slice as slicing
from gsprune.kernels.launch import Launch

DTYPES = (
    torch.float32,
    torch.bfloat16,
    torch.uint8,
    torch.float64,
    torch.complex128,
    torch.bool,
    torch.int64,
    torch.float8_e4m3fn,
)
CASES = [
    ((7,), (0,)),
    ((100,), (0,)),
    ((64, 63), (0, 1)),
    ((65, 1), (0,)),
    ((5, 300), (1,)),
    ((300, 5), (0, 1)),
    ((64, 1, 3, 3), (0,)),
    ((7, 63, 3, 3), (0, 1)),
    ((6, 5, 2, 2), (1,)),
    ((3, 6, 8), (1, 2)),
    ((4, 5, 6, 7), (1, 3)),
    ((4, 5, 6, 7), (0, 2, 3)),
]


def some(size: int, seed: int) -> npt.NDArray[np.int64]:
    return np.sort(np.random.default_rng(seed).permutation(size)[: max(1, size * 2 // 3)]).astype(np.int64)


def draw(shape: tuple[int, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
    generator = torch.Generator().manual_seed(sum(shape))
    return torch.randint(0, 100, shape, generator=generator).to(torch.float32).to(dtype).to(device)


def fields_of(launch: Launch) -> npt.NDArray[np.int64]:
    """A row per job, see csrc/launch/slice_tables.hpp."""
    return launch.table[: launch.jobs * 17].reshape(launch.jobs, 17)


def paths_of(launch: Launch) -> set[str]:
    """The branches that the jobs of a launch took."""
    rows = fields_of(launch)
    return {f"{row[3]}-byte" for row in rows} | {("flat", "wide", "tall")[row[4]] for row in rows}


def bits(tensor: Tensor) -> Tensor:
    return tensor.cpu().contiguous().view(torch.uint8)


def assert_sliced(result: Tensor, tensor: Tensor, keeps: slicing.Keeps) -> None:
    expected = reference.slice_tensor(tensor, [(axis, torch.from_numpy(k).to(tensor.device)) for axis, k in keeps])
    assert (result.dtype, result.device, result.stride()) == (tensor.dtype, tensor.device, expected.stride())
    assert torch.equal(bits(result), bits(expected))
    assert result.untyped_storage().nbytes() == result.numel() * result.element_size(), "a view of a larger block"


@pytest.mark.usefixtures("poisoned")
def test_one_launch_slices_every_tensor_as_the_definition_does(device: torch.device) -> None:
    tensors, patterns, pattern_of = [], [], []
    for index, (shape, axes) in enumerate(CASES):
        patterns.append(tuple((axis, some(shape[axis], index + axis)) for axis in axes))
        for step in range(3):
            tensor = draw(shape, DTYPES[(index + 3 * step) % len(DTYPES)], device)
            layouts = [tensor]
            if tensor.ndim == 4:
                layouts.append(tensor.to(memory_format=torch.channels_last))
            tensors += layouts
            pattern_of += [index] * len(layouts)
    before = [tensor.clone() for tensor in tensors]
    results, launches = slicing.slice_tensors(tensors, patterns, pattern_of)
    for result, tensor, copy, which in zip(results, tensors, before, pattern_of, strict=True):
        assert_sliced(result, tensor, patterns[which])
        assert torch.equal(bits(tensor), bits(copy)), "the source was changed"
    assert len(launches) == 1
    assert launches[0].jobs == len(tensors)
    shapes, words = {"flat", "wide", "tall"}, {"1-byte", "2-byte", "4-byte", "8-byte"}
    assert paths_of(launches[0]) == shapes | words


@pytest.mark.parametrize("kept", [[0], [62], list(range(63)), [0, 62]], ids=["first", "last", "all", "both ends"])
def test_the_ends_of_what_can_be_kept(kept: list[int], device: torch.device) -> None:
    keep = np.asarray(kept, np.int64)
    tensor = draw((63, 63), torch.float32, device)
    results, _ = slicing.slice_tensors([tensor], [((0, keep), (1, keep))], [0])
    assert_sliced(results[0], tensor, ((0, keep), (1, keep)))


def test_a_weight_and_its_moments_share_a_pattern_though_they_lie_differently(device: torch.device) -> None:
    pattern = ((0, some(6, 0)), (1, some(5, 1)))
    weight = draw((6, 5, 3, 3), torch.float32, device)
    tensors = [weight, weight.to(torch.bfloat16), weight.to(memory_format=torch.channels_last), weight.double()]
    results, launches = slicing.slice_tensors(tensors, [pattern], [0] * 4)
    for result, tensor in zip(results, tensors, strict=True):
        assert_sliced(result, tensor, pattern)
    assert len(launches) == 1


def test_a_channels_last_weight_stays_channels_last(device: torch.device) -> None:
    weight = draw((6, 8, 3, 3), torch.float32, device).to(memory_format=torch.channels_last)
    results, _ = slicing.slice_tensors([weight], [((0, some(6, 0)), (1, some(8, 1)))], [0])
    assert results[0].is_contiguous(memory_format=torch.channels_last)


def test_a_view_that_starts_at_an_odd_byte_is_moved_in_single_bytes(device: torch.device) -> None:
    tensor = draw((1 + 6 * 8,), torch.uint8, device)[1:].view(6, 8)
    keep = some(6, 0)
    results, launches = slicing.slice_tensors([tensor], [((0, keep),)], [0])
    assert_sliced(results[0], tensor, ((0, keep),))
    assert "1-byte" in paths_of(launches[0])


def test_views_with_gaps_and_overlaps_are_sliced_like_any_tensor(device: torch.device) -> None:
    whole = draw((8, 10, 6), torch.float32, device)
    views = [whole[::2, 1:8, 3], whole[:4, :, :1].expand(4, 10, 6)[:, :7, 0]]
    pattern = ((0, some(4, 0)), (1, some(7, 1)))
    results, _ = slicing.slice_tensors(views, [pattern], [0, 0])
    for result, view in zip(results, views, strict=True):
        expected = view[torch.from_numpy(pattern[0][1]).to(device)][:, torch.from_numpy(pattern[1][1]).to(device)]
        assert torch.equal(result, expected)


def test_rows_beyond_two_to_the_31_bytes_are_read_where_they_are(device: torch.device) -> None:
    columns = 4097  # odd, so that the word is one byte; only the pages of the last rows are ever touched
    rows = 2**31 // columns + 10
    tensor = torch.empty(rows * columns, dtype=torch.uint8, device=device).view(rows, columns)
    tensor[-3:] = (torch.arange(3 * columns) % 251).view(3, columns)
    results, _ = slicing.slice_tensors([tensor], [((0, np.asarray([rows - 3, rows - 1], np.int64)),)], [0])
    assert torch.equal(results[0], tensor[[rows - 3, rows - 1]])


def test_axes_that_stay_whole_are_copied_as_they_are(device: torch.device) -> None:
    tensor = draw((6, 5, 3), torch.float32, device)
    keep = some(5, 0)
    everything = np.arange(6)
    patterns = [(), ((0, everything),), ((0, everything), (1, keep)), ((1, keep),)]
    results, launches = slicing.slice_tensors([tensor] * 4 + [tensor[0, 0, 0]], patterns, [0, 1, 2, 3, 0])
    for result, pattern in zip(results[:4], patterns, strict=True):
        assert_sliced(result, tensor, pattern)
    assert results[4].shape == ()
    assert results[4].item() == tensor[0, 0, 0].item()
    assert len(launches) == 1


def test_what_keeps_nothing_is_empty(device: torch.device) -> None:
    tensor = draw((6, 5), torch.float32, device)
    nothing = np.zeros(0, np.int64)
    results, launches = slicing.slice_tensors([tensor, tensor[:, :0]], [((1, nothing),), ((0, some(6, 0)),)], [0, 1])
    assert [tuple(result.shape) for result in results] == [(6, 0), (4, 0)]
    assert launches == []


@pytest.mark.parametrize("shape", [(1001,), (1, 1001), (1001, 1)])
def test_a_row_too_long_is_cut_into_rows_where_that_can_be(shape: tuple[int, ...]) -> None:
    tensor = torch.zeros(shape, dtype=torch.uint8)
    axis = shape.index(1001)
    for pattern in (((axis, np.arange(900)),), ()):
        launch = _core.launch.slice_tables([tensor], [pattern], [0], [(1, 2048)], 800, 8, 4096)
        assert launch.programs == (900 if pattern else 1001)


@pytest.mark.usefixtures("poisoned")
def test_programs_go_down_several_tiles(device: torch.device, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(slicing, "_BUSY_TILES", 2)
    tensors = [
        draw(shape, torch.float32, device) for shape in ((90, 120), (700, 9), (40, 30, 3, 3), (3, 5000), (6000,))
    ]
    patterns = [tuple((axis, some(size, axis)) for axis, size in enumerate(tensor.shape[:2])) for tensor in tensors]
    results, launches = slicing.slice_tensors(tensors, patterns, list(range(len(tensors))))
    for result, tensor, pattern in zip(results, tensors, patterns, strict=True):
        assert_sliced(result, tensor, pattern)
    rows = fields_of(launches[0])
    steps = {("flat", "wide", "tall")[row[4]]: row[8] for row in rows}
    assert steps["wide"] > 1
    assert steps["tall"] > 1
    assert any(row[5] % (8 * row[8]) for row in rows if row[8] > 1), "the last program of a job goes beyond its end"


def test_a_row_too_long_is_refused_and_so_is_a_grid() -> None:
    tensor = torch.zeros(4, 1001, dtype=torch.uint8)
    pattern = ((0, np.arange(2)), (1, np.arange(900)))
    with pytest.raises(ValueError, match=r"\(4, 1001\) keeps 900 words .* at most 800; split the tensor or use"):
        _core.launch.slice_tables([tensor], [pattern], [0], [(1, 2048)], 800, 8, 4096)
    with pytest.raises(ValueError, match="slicing takes 2147483648 programs or more, but one launch holds 2147483647"):
        _core.launch.slice_tables([torch.empty(2**31, dtype=torch.uint8)], [()], [0], [(1, 1)], 1, 1, 1)


def test_no_tensors_launch_nothing(device: torch.device) -> None:
    assert slicing.slice_tensors([], [], []) == ([], [])
