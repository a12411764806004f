from __future__ import annotations

import numpy as np
import pytest
import torch
from core_layouts import SHAPES, cases, isas, lay_out, random_keep
from hypothesis import given
from hypothesis import strategies as st

from gsprune.backends import CppBackend, Pattern, TorchBackend

REFERENCE = TorchBackend()
DTYPES = (
    torch.float32,
    torch.float64,
    torch.bfloat16,
    torch.float16,
    torch.int64,
    torch.int32,
    torch.uint8,
    torch.bool,
    torch.complex64,
    torch.float8_e4m3fn,
)


def _same_bits(a: torch.Tensor, b: torch.Tensor) -> bool:
    if a.is_complex():
        a, b = torch.view_as_real(a), torch.view_as_real(b)
    if a.dtype == torch.float8_e4m3fn:
        a, b = a.view(torch.uint8), b.view(torch.uint8)
    return a.shape == b.shape and torch.equal(a, b)


def _assert_equal_slices(backend: CppBackend, tensors: list[torch.Tensor], patterns: list[Pattern]) -> None:
    which = [i for i in range(len(patterns)) for _ in tensors]
    repeated = tensors * len(patterns)
    expected = REFERENCE.slice(repeated, patterns, which)
    for source, got, wanted in zip(repeated, backend.slice(repeated, patterns, which), expected, strict=True):
        assert got.dtype == source.dtype
        assert got.stride() == wanted.stride()
        assert _same_bits(got, wanted)


@pytest.mark.parametrize("isa", isas())
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_slices_equal_the_definition_for_every_layout_and_lane_size(shape: tuple[int, ...], isa: str) -> None:
    generator = np.random.default_rng(0)
    for dtype in (torch.uint8, torch.bfloat16, torch.float32, torch.float64):
        tensors = [tensor for _, tensor in cases(shape, torch.float32, seed=4)]
        tensors = [(tensor * 50).to(dtype) if tensor.is_contiguous() else tensor.to(dtype) for tensor in tensors]
        patterns = []
        for fraction in (0.1, 0.5, 0.95):
            keeps = [(axis, random_keep(size, fraction, generator)) for axis, size in enumerate(shape)]
            patterns += [(keep,) for keep in keeps]
            patterns += [tuple(keeps[:2]), tuple(reversed(keeps))]
        _assert_equal_slices(CppBackend(2, isa), tensors, patterns)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_any_dtype_is_sliced(dtype: torch.dtype) -> None:
    values = torch.randint(0, 2, (33, 20, 3)) if dtype == torch.bool else torch.randint(0, 100, (33, 20, 3))
    keeps = ((0, np.arange(0, 33, 2)), (1, np.array([0, 1, 5, 19])))
    _assert_equal_slices(CppBackend(1), [values.to(dtype)], [keeps])


@given(
    shape=st.lists(st.integers(1, 40), min_size=1, max_size=4),
    itemsize=st.sampled_from([torch.uint8, torch.int16, torch.int32, torch.int64]),
    order_seed=st.integers(0, 2**16),
    fraction=st.floats(0.05, 1.0),
    num_threads=st.integers(1, 3),
    isa=st.sampled_from(isas()),
)
def test_any_order_of_dimensions_in_memory_is_kept(
    shape: list[int], itemsize: torch.dtype, order_seed: int, fraction: float, num_threads: int, isa: str
) -> None:
    generator = np.random.default_rng(order_seed)
    order = generator.permutation(len(shape)).tolist()
    values = torch.from_numpy(generator.integers(-100, 100, [shape[i] for i in order])).to(itemsize)
    tensor = values.permute(np.argsort(order).tolist())
    axes = generator.permutation(len(shape))[: generator.integers(1, len(shape) + 1)]
    pattern = tuple((int(axis), random_keep(tensor.shape[axis], fraction, generator)) for axis in axes)
    _assert_equal_slices(CppBackend(num_threads, isa), [tensor], [pattern])


@pytest.mark.parametrize("isa", isas())
def test_a_call_large_enough_to_bypass_the_caches_is_right_to_the_last_byte(isa: str) -> None:
    generator = np.random.default_rng(5)
    tensors = [torch.randn(700, 1501), torch.randn(96, 33, 37, 11), torch.randn(3_000_003)]
    tensors[1] = lay_out(tensors[1], "channels_last")
    keeps = [[random_keep(size, 0.9, generator) for size in tensor.shape[:2]] for tensor in tensors]
    patterns = [tuple(enumerate(kept)) for kept in keeps]
    expected = REFERENCE.slice(tensors, patterns, [0, 1, 2])
    assert sum(tensor.nbytes for tensor in expected) > 16 << 20
    for num_threads in (1, 3):
        for got, wanted in zip(CppBackend(num_threads, isa).slice(tensors, patterns, [0, 1, 2]), expected, strict=True):
            assert torch.equal(got, wanted)


def test_a_shared_pattern_serves_tensors_of_different_layout_and_dtype() -> None:
    weight = torch.randn(16, 8, 3, 3)
    others = [weight.contiguous(memory_format=torch.channels_last), weight.to(torch.float64), weight[:, :, :2]]
    _assert_equal_slices(CppBackend(1), [weight, *others], [((0, np.arange(1, 16, 3)), (1, np.arange(4)))])


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int16, torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("isa", isas())
def test_nothing_outside_the_tensor_is_read(isa: str, dtype: torch.dtype) -> None:
    # What is kept begins and ends with the tensor, which fills a page between two that cannot be read.
    import ctypes
    import mmap

    page = mmap.PAGESIZE
    memory = mmap.mmap(-1, 3 * page)
    address = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    libc = ctypes.CDLL(None, use_errno=True)
    for edge in (address, address + 2 * page):
        assert libc.mprotect(ctypes.c_void_p(edge), ctypes.c_size_t(page), 0) == 0
    try:
        raw = (ctypes.c_uint8 * page).from_address(address + page)
        between = torch.frombuffer(raw, dtype=dtype)
        between.copy_(torch.arange(between.numel()) % 251)
        generator = np.random.default_rng(0)
        for width in (2, 4, 64, 256, between.numel()):
            tensor = between.view(-1, width)
            for fraction in (0.02, 0.3, 0.6, 0.95):
                inner = random_keep(width, fraction, generator)
                keep = np.union1d(inner, [0, width - 1]).astype(np.int64)
                (got,) = CppBackend(1, isa).slice([tensor], [((1, keep),)], [0])
                assert torch.equal(got, tensor[:, torch.from_numpy(keep)])
    finally:
        for edge in (address, address + 2 * page):
            libc.mprotect(ctypes.c_void_p(edge), ctypes.c_size_t(page), 3)


def test_keeping_everything_copies_and_keeping_nothing_gives_an_empty_axis() -> None:
    tensor = torch.randn(4, 6)
    everything, nothing = ((0, np.arange(4)),), ((1, np.arange(0)),)
    copied, empty = CppBackend(1).slice([tensor, tensor], [everything, nothing], [0, 1])
    assert torch.equal(copied, tensor)
    assert copied.data_ptr() != tensor.data_ptr()
    assert empty.shape == (4, 0)


def test_one_removed_and_one_kept_are_right() -> None:
    tensor = torch.randn(65, 67)
    all_but_one = ((0, np.delete(np.arange(65), 13)), (1, np.delete(np.arange(67), 66)))
    only_one = ((0, np.array([64])), (1, np.array([66])))
    _assert_equal_slices(CppBackend(1), [tensor], [all_but_one, only_one])


def test_channels_last_survives_a_width_of_one() -> None:
    weight = torch.randn(8, 4, 3, 3).contiguous(memory_format=torch.channels_last)
    (got,) = CppBackend(1).slice([weight], [((1, np.array([2])),)], [0])
    assert got.stride() == (9, 1, 3, 1)
    assert got.is_contiguous(memory_format=torch.channels_last)
