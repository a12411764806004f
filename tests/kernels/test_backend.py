"""The Triton provider keeps the protocol of the backends and refuses what its kernels don't know."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from gsprune.backends import Pattern, Statistic, SumJob, TorchBackend, get_backend

pytest.importorskip("triton")

from gsprune.kernels.backend import TritonBackend
from gsprune.kernels.launch import INTERPRETED, MAX_PROGRAMS, checked_programs


@pytest.fixture
def backend(device: torch.device) -> TritonBackend:
    return TritonBackend(device)


def keep(*positions: int) -> np.ndarray:
    return np.asarray(positions, np.int64)


def test_it_is_what_get_backend_gives_and_answers_as_the_torch_provider(device: torch.device) -> None:
    backend = get_backend("triton", device)
    assert backend.name == "triton"
    tensor = torch.randn(7, 5, 3, 3, generator=torch.Generator().manual_seed(0)).to(device)
    job = SumJob(tensor, (0, 1))
    pattern = Pattern(((0, keep(0, 2, 6)), (1, keep(1, 3))))
    other = TorchBackend()
    for ours, theirs in zip(
        backend.axis_sums([job], Statistic.ABS)[0], other.axis_sums([job], Statistic.ABS)[0], strict=True
    ):
        np.testing.assert_allclose(ours, theirs, rtol=1e-13)
    assert torch.equal(backend.slice([tensor], [pattern], [0])[0], other.slice([tensor], [pattern], [0])[0])
    scores = np.asarray([1.0, 3.0, 3.0, -0.0, 0.0, 2.0], np.float32)
    for count in range(len(scores) + 1):
        assert np.array_equal(backend.select(scores, count), other.select(scores, count))


def test_it_tells_what_it_launched(backend: TritonBackend, device: torch.device) -> None:
    backend.axis_sums([SumJob(torch.ones(4, 4, device=device), (0, 1))] * 3, Statistic.ABS)
    assert [(launch.kernel, launch.jobs) for launch in backend.launches] == [("score", 3), ("fold", 6)]
    backend.slice([torch.ones(4, device=device)] * 2, [Pattern(((0, keep(1, 2)),))], [0, 0])
    assert [(launch.kernel, launch.jobs) for launch in backend.launches] == [("slice", 2)]


def test_a_second_tensor_is_not_read_where_the_statistic_has_none(backend: TritonBackend, device: torch.device) -> None:
    tensor = torch.ones(3, 2, device=device)
    sums = backend.axis_sums([SumJob(tensor, (0,), torch.full_like(tensor, float("nan")))], Statistic.SQUARE)
    assert sums[0][0].tolist() == [2.0, 2.0, 2.0]


def test_bad_jobs_are_named(backend: TritonBackend, device: torch.device) -> None:
    good = torch.ones(3, 2, device=device)
    with pytest.raises(ValueError, match=r"job 1: `tensor` must be float32, float64, bfloat16 or float16"):
        backend.axis_sums([SumJob(good, (0,)), SumJob(good.int(), (0,))], Statistic.ABS)
    for axes in ((2,), (-1,), (0, 0)):
        with pytest.raises(ValueError, match=r"job 0: `axes` must be distinct and lie in \[0, 2\)"):
            backend.axis_sums([SumJob(good, axes)], Statistic.ABS)
    with pytest.raises(ValueError, match=r"job 0: `other` must be a tensor for the statistic 'product'"):
        backend.axis_sums([SumJob(good, (0,))], Statistic.PRODUCT)
    for other in (good.T, good.double()):
        with pytest.raises(ValueError, match=r"job 0: `other` must be \(3, 2\) torch.float32 as `tensor` is"):
            backend.axis_sums([SumJob(good, (0,), other)], Statistic.PRODUCT)
    with pytest.raises(ValueError, match="must be on one"):
        backend.axis_sums([SumJob(good.to("meta"), (0,))], Statistic.ABS)


@pytest.mark.parametrize(
    ("keeps", "message"),
    [
        ((), "at least one axis"),
        (((0, keep(0)), (0, keep(1))), "none twice"),
        (((0, keep(1, 0)),), "strictly ascending"),
        (((0, keep(1, 1)),), "strictly ascending"),
        (((0, np.zeros(1, np.int32)),), "must be int64"),
        (((2, keep(0)),), "slices axis 2, but the tensor has 2 dimensions"),
        (((0, keep(0, 3)),), r"keeps positions in \[0, 3\] along axis 0, which has 3"),
        (((0, keep(-1, 1)),), r"keeps positions in \[-1, 1\]"),
    ],
)
def test_bad_patterns_are_named(keeps: tuple, message: str, backend: TritonBackend, device: torch.device) -> None:
    with pytest.raises(ValueError, match=message):
        backend.slice([torch.ones(3, 2, device=device)], [Pattern(keeps)], [0])


def test_a_pattern_that_is_not_there_is_refused(backend: TritonBackend, device: torch.device) -> None:
    tensor = torch.ones(3, device=device)
    with pytest.raises(ValueError, match=r"tensor 0: its pattern must lie in \[0, 1\), got 1"):
        backend.slice([tensor], [Pattern(((0, keep(0)),))], [1])
    with pytest.raises(ValueError, match="`pattern_of` must hold one index per tensor, 1, got 2"):
        backend.slice([tensor], [Pattern(((0, keep(0)),))], [0, 0])


def test_select_refuses_nan_and_a_count_that_is_not_there(backend: TritonBackend) -> None:
    with pytest.raises(ValueError, match="NaN"):
        backend.select(np.asarray([1.0, np.nan], np.float32), 1)
    with pytest.raises(ValueError, match=r"`keep` must lie in \[0, len\(scores\)=2\], got 3"):
        backend.select(np.zeros(2, np.float32), 3)


def test_it_does_not_serve_the_other_kind_of_device() -> None:
    with pytest.raises(ValueError, match="`backend` 'triton' works on CUDA tensors"):
        TritonBackend(torch.device("cuda" if INTERPRETED else "cpu"))


def test_a_grid_too_large_is_refused() -> None:
    assert checked_programs(MAX_PROGRAMS, "slicing") == MAX_PROGRAMS
    with pytest.raises(ValueError, match="slicing takes 2147483648 programs"):
        checked_programs(MAX_PROGRAMS + 1, "slicing")
