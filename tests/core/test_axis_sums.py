from __future__ import annotations

import numpy as np
import pytest
import torch
from by_group import SumJob, axis_sums
from core_layouts import FLOATS, SHAPES, cases, isas, lay_out

from gsprune.backends import CppBackend, TorchBackend

REFERENCE = TorchBackend()
STATISTICS = ("abs", "square", "product", "abs_product", "square_product")


def _jobs(tensor: torch.Tensor, other: torch.Tensor) -> list[SumJob]:
    single = [(axis,) for axis in range(tensor.ndim)]
    pairs = [(0, 1), (1, 0)] if tensor.ndim > 1 else []
    return [SumJob(tensor, axes, other) for axes in [*single, *pairs, tuple(range(tensor.ndim))]]


def _bits(results: list[tuple[np.ndarray, ...]]) -> list[bytes]:
    return [vector.tobytes() for vectors in results for vector in vectors]


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("dtype", FLOATS, ids=str)
def test_sums_equal_the_definition_for_every_layout(shape: tuple[int, ...], dtype: torch.dtype) -> None:
    backend = CppBackend(num_threads=2)
    for layout, tensor in cases(shape, dtype, seed=0):
        other = torch.randn(shape, generator=torch.Generator().manual_seed(1)).to(dtype)
        jobs = _jobs(tensor, other)
        for statistic in STATISTICS:
            expected = axis_sums(REFERENCE, jobs, statistic)
            for got, wanted in zip(axis_sums(backend, jobs, statistic), expected, strict=True):
                for sums, right in zip(got, wanted, strict=True):
                    np.testing.assert_allclose(sums, right, rtol=1e-12, atol=1e-11, err_msg=f"{layout} {statistic}")


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
@pytest.mark.parametrize("statistic", ["abs", "square_product"])
def test_every_instruction_set_and_number_of_threads_gives_the_same_bits(dtype: torch.dtype, statistic: str) -> None:
    generator = torch.Generator().manual_seed(2)
    shapes = [(257, 2100), (64, 32, 3, 3), (33, 65), (1, 4097), (2049, 1), (48, 1, 3, 3)]
    jobs = []
    for shape in shapes:
        tensor, other = (torch.randn(shape, generator=generator).to(dtype) for _ in range(2))
        jobs.append(SumJob(tensor, (0, 1), other))
        if len(shape) == 4:
            channels_last = lay_out(tensor, "channels_last")
            assert channels_last is not None
            jobs.append(SumJob(channels_last, (0, 1), other))
    expected = _bits(axis_sums(CppBackend(1, "plain"), jobs, statistic))
    for isa in isas():
        for num_threads in (1, 2, 5):
            assert _bits(axis_sums(CppBackend(num_threads, isa), jobs, statistic)) == expected, (isa, num_threads)


def test_the_company_of_other_tensors_does_not_change_the_bits() -> None:
    generator = torch.Generator().manual_seed(3)
    jobs = [SumJob(torch.randn(n, 700, generator=generator), (0, 1)) for n in (3, 64, 300)]
    backend = CppBackend(2)
    alone = [vector for job in jobs for vector in _bits(axis_sums(backend, [job], "abs"))]
    assert _bits(axis_sums(backend, jobs, "abs")) == alone


@pytest.mark.parametrize("isa", isas())
def test_float32_products_are_summed_in_float64(isa: str) -> None:
    # 1 + 2^-30 squared has a digit that neither a float32 product nor a float32 sum could hold.
    tensor = torch.full((1, 4096), 1.0)
    other = torch.full((1, 4096), 2.0**-24)
    ((sums,),) = axis_sums(CppBackend(1, isa), [SumJob(tensor, (0,), other)], "product")
    assert sums[0] == 4096 * 2.0**-24
    big_and_small = torch.tensor([[2.0**24, 1.0, 1.0, 1.0]])
    ((sums,),) = axis_sums(CppBackend(1, isa), [SumJob(big_and_small, (0,))], "abs")
    assert sums[0] == 2.0**24 + 3


@pytest.mark.parametrize("isa", isas())
def test_every_half_precision_number_is_read_exactly(isa: str) -> None:
    for dtype in (torch.float16, torch.bfloat16):
        every = torch.arange(-(2**15), 2**15, dtype=torch.int32).to(torch.int16).view(dtype).reshape(-1, 64)
        finite = torch.where(torch.isfinite(every), every, torch.zeros_like(every))
        ((sums,),) = axis_sums(CppBackend(1, isa), [SumJob(finite.reshape(-1, 1), (0,))], "abs")
        np.testing.assert_array_equal(sums, finite.to(torch.float64).abs().flatten().numpy())


@pytest.mark.parametrize("isa", isas())
@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_what_is_not_finite_reaches_exactly_its_row_and_its_column(isa: str, bad: float) -> None:
    tensor = torch.ones(9, 21)
    tensor[4, 17] = bad
    ((rows, columns),) = axis_sums(CppBackend(1, isa), [SumJob(tensor, (0, 1))], "abs")
    assert np.flatnonzero(~np.isfinite(rows)).tolist() == [4]
    assert np.flatnonzero(~np.isfinite(columns)).tolist() == [17]


def test_an_empty_tensor_has_sums_of_zero() -> None:
    ((rows, columns),) = axis_sums(CppBackend(1), [SumJob(torch.empty(3, 0), (0, 1))], "abs")
    assert rows.tolist() == [0.0, 0.0, 0.0]
    assert columns.shape == (0,)


def test_no_job_is_no_result() -> None:
    assert axis_sums(CppBackend(1), [], "abs") == []
    assert CppBackend(1).axis_sums([], [], None, "abs").shape == (0,)
    assert REFERENCE.axis_sums([], [], None, "abs").shape == (0,)


def test_in_one_array_the_vectors_stand_one_after_the_other() -> None:
    generator = torch.Generator().manual_seed(4)
    tensors = [torch.randn(shape, generator=generator) for shape in [(8, 3, 2), (0, 4), (5,), (70, 900)]]
    others = [torch.randn(tensor.shape, generator=generator) for tensor in tensors]
    axes: list[tuple[int, ...]] = [(2, 0), (1,), (), (0, 1)]
    jobs = [SumJob(*job) for job in zip(tensors, axes, others, strict=True)]
    for statistic in ("abs", "product"):
        apart = [vector for vectors in axis_sums(CppBackend(2), jobs, statistic) for vector in vectors]
        flat = CppBackend(2).axis_sums(tensors, axes, others if "product" in statistic else None, statistic)
        assert flat.tobytes() == np.concatenate(apart).tobytes()
        np.testing.assert_allclose(REFERENCE.axis_sums(tensors, axes, others, statistic), flat, rtol=1e-12, atol=1e-11)


def test_inputs_are_not_changed() -> None:
    tensor, other = torch.randn(40, 30), torch.randn(30, 40).t()
    before = tensor.clone(), other.clone()
    axis_sums(CppBackend(2), [SumJob(tensor, (0, 1), other)], "product")
    assert torch.equal(tensor, before[0])
    assert torch.equal(other, before[1])
