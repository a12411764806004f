"""Tensors made by the core are as good as torch's own."""

from __future__ import annotations

import copy
import gc
import io
import os
import pickle
import signal
import threading
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from torch_features import needs_exchange_table

from gsprune import _core
from gsprune.backends import CppBackend, bind_torch

LARGE = 600  # half of 600 x 600 float32 is 0.7 MB
LARGER = 1500  # half of it is 4.5 MB: on huge pages


@pytest.fixture
def without_exchange_api() -> Iterator[None]:
    """A torch whose tensors can only be read through their attributes."""
    bind_torch(None)
    yield
    bind_torch()


def _sliced(tensor: torch.Tensor) -> torch.Tensor:
    keep = np.arange(0, tensor.shape[0], 2)
    return CppBackend(1).slice([tensor], [((0, keep),)], [0])[0]


@pytest.mark.parametrize("size", [8, LARGE, LARGER])
def test_a_slice_can_take_the_place_of_a_parameter(size: int) -> None:
    parameter = torch.nn.Parameter(torch.randn(size, size))
    expected = parameter.detach()[::2].clone()
    with torch.no_grad():
        parameter.set_(_sliced(parameter))
    assert torch.equal(parameter, expected)
    (parameter * 2).sum().backward()
    assert parameter.grad is not None
    assert parameter.grad.shape == expected.shape
    torch.optim.SGD([parameter], lr=0.5).step()
    assert torch.equal(parameter, expected - 1)


@pytest.mark.parametrize("size", [8, LARGE, LARGER])
def test_a_slice_owns_exactly_its_bytes(size: int) -> None:
    tensor = _sliced(torch.randn(size, size))
    assert tensor.untyped_storage().nbytes() == tensor.numel() * 4
    assert tensor.storage_offset() == 0
    assert not tensor.requires_grad
    assert tensor.is_leaf
    file = io.BytesIO()
    torch.save(tensor, file)
    assert file.tell() < tensor.numel() * 4 + 4096


@pytest.mark.parametrize("size", [8, LARGE, LARGER])
def test_a_slice_survives_copies_pickling_and_sharing(size: int) -> None:
    tensor = _sliced(torch.randn(size, size))
    expected = tensor.clone()
    assert torch.equal(copy.deepcopy(tensor), expected)
    assert torch.equal(pickle.loads(pickle.dumps(tensor)), expected)
    assert torch.equal(torch.from_numpy(tensor.numpy()), expected)
    assert torch.equal(tensor.clone().share_memory_(), expected)
    shared = _sliced(torch.randn(size, size)).share_memory_()
    assert shared.is_shared()
    smaller = tensor.resize_(2, 3)
    assert torch.equal(smaller, expected.flatten()[:6].view(2, 3))


def test_a_slice_outlives_its_source() -> None:
    source = torch.randn(LARGE, LARGE)
    expected = source[::2].clone()
    tensor = _sliced(source)
    del source
    gc.collect()
    assert torch.equal(tensor, expected)


@pytest.mark.parametrize("size", [8, LARGE, LARGER])
def test_memory_that_somebody_still_sees_is_never_handed_out_again(size: int) -> None:
    views = []
    for step in range(20):
        tensor = _sliced(torch.full((size, size), float(step)))
        views.append(tensor[2:4])  # outlives the tensor, on the same storage
        del tensor
    for step, view in enumerate(views):
        assert bool((view == step).all())


@pytest.mark.parametrize("size", [LARGE, LARGER])
def test_repeated_steps_use_the_memory_of_the_steps_before(size: int) -> None:
    gc.collect()
    _core.memory.trim_reserve()
    before, _ = _core.memory.pool_use()
    tensors = [_sliced(torch.randn(2 * size, size)) for _ in range(4)]
    seen = []
    for _ in range(6):
        keep = np.delete(np.arange(tensors[0].shape[0]), 5)
        tensors = CppBackend(1).slice(tensors, [((0, keep),)], [0] * 4)
        in_use, in_reserve = _core.memory.pool_use()
        seen.append(in_use - before + in_reserve)
    assert max(seen[1:]) <= seen[0]
    assert max(seen) <= 2.2 * sum(tensor.nbytes for tensor in tensors) + (32 << 20)


def test_tensors_that_shrink_to_a_tenth_leave_nothing_behind() -> None:
    gc.collect()
    _core.memory.trim_reserve()
    before, _ = _core.memory.pool_use()
    tensors = [_sliced(torch.randn(size, LARGER)) for size in range(200, 2200, 100)]
    while tensors[-1].shape[0] > 110:
        keeps = [np.arange(0, len(tensor), 1.06).astype(np.int64) for tensor in tensors]
        patterns = [((0, keep),) for keep in keeps]
        tensors = CppBackend(1).slice(tensors, patterns, list(range(len(tensors))))
        in_use, in_reserve = _core.memory.pool_use()
        assert in_use - before <= 1.25 * sum(tensor.nbytes for tensor in tensors)
        assert in_reserve <= max(2 * in_use, 48 << 20)


def test_tensors_that_get_shorter_stand_on_what_longer_ones_left() -> None:
    gc.collect()
    _core.memory.trim_reserve()
    tensors = [_sliced(torch.randn(9000, 256)) for _ in range(4)]  # 4.6 MB each
    for num_rows in (4300, 4050, 3800):
        held = sum(_core.memory.pool_use())
        keep = np.arange(num_rows)
        tensors = CppBackend(1).slice(tensors, [((0, keep),)], [0] * 4)
    assert tensors[0].nbytes < 4 << 20
    assert sum(_core.memory.pool_use()) <= held


def test_a_tensor_that_outlives_the_others_keeps_no_more_than_itself() -> None:
    gc.collect()
    _core.memory.trim_reserve()
    before, _ = _core.memory.pool_use()
    tensors = [_sliced(torch.randn(LARGE, LARGE)) for _ in range(8)]
    held, seen = [], []
    for step in range(60):
        kept = np.arange(len(tensors[0]))
        held.append(tensors[step % 8][:1])  # a view of a row, so that the tensor's block stays
        tensors = CppBackend(1).slice(tensors, [((0, kept),)], [0] * 8)
        in_use, in_reserve = _core.memory.pool_use()
        living = sum(tensor.nbytes for tensor in [*tensors, *held[-1:] * len(held)])
        living += sum(view.untyped_storage().nbytes() - view.nbytes for view in held)
        assert in_use - before <= 1.01 * living
        seen.append(in_reserve)
    assert max(seen) <= 48 << 20


@pytest.mark.parametrize(("size", "slack"), [(LARGE, 4096), (LARGER, 2 << 20)])
def test_a_block_much_too_long_for_a_new_tensor_is_left_in_reserve(size: int, slack: int) -> None:
    gc.collect()
    _core.memory.trim_reserve()
    before, _ = _core.memory.pool_use()
    long = _sliced(torch.randn(4 * size, size))
    del long
    short = _sliced(torch.randn(size, size))
    in_use, _ = _core.memory.pool_use()
    assert in_use - before <= 1.25 * short.nbytes + slack


@needs_exchange_table
@pytest.mark.parametrize("size", [LARGE, LARGER])
def test_trimming_gives_back_the_reserve_and_nothing_else(size: int) -> None:
    held = _sliced(torch.full((size, size), 7.0))
    dropped = [_sliced(torch.randn(2 * LARGER, LARGER)), *(_sliced(torch.randn(LARGE, LARGE)) for _ in range(40))]
    del dropped
    _, in_reserve = _core.memory.pool_use()
    freed = _core.memory.trim_reserve()
    assert freed > 0
    assert _core.memory.pool_use()[1] == in_reserve - freed
    assert _core.memory.trim_reserve() == 0
    assert bool((held == 7.0).all())


@needs_exchange_table
def test_tensors_may_die_in_any_thread() -> None:
    tensors = [[_sliced(torch.randn(LARGE, LARGE))] for _ in range(8)]
    threads = [threading.Thread(target=cell.clear) for cell in tensors]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert _core.memory.trim_reserve() > 0


@pytest.mark.usefixtures("without_exchange_api")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.int64, torch.bool])
def test_without_the_exchange_api_the_answers_are_the_same(dtype: torch.dtype) -> None:
    tensor = torch.randn(9, 8, 3, 3).to(dtype).contiguous(memory_format=torch.channels_last)
    keep = np.arange(0, 9, 2)
    (got,) = CppBackend(1).slice([tensor], [((0, keep),)], [0])
    assert torch.equal(got, tensor[::2])
    assert got.is_contiguous(memory_format=torch.channels_last)
    assert got.dtype == dtype
    if dtype.is_floating_point:
        sums = _core.score.axis_sums([tensor], [(0,)], [None], "abs", 1, "auto")
        np.testing.assert_allclose(sums, tensor.double().abs().sum((1, 2, 3)).numpy(), rtol=1e-12)
    with pytest.raises(ValueError, match=r"`tensors\[0\]` must be a strided CPU tensor"):
        CppBackend(1).slice([torch.empty(3, device="meta")], [((0, keep[:1]),)], [0])


@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
def test_a_forked_child_slices_and_scores_with_threads_of_its_own() -> None:
    tensor = torch.randn(2 * LARGE, LARGE)
    pattern = ((0, np.arange(0, 2 * LARGE, 2)),)
    CppBackend(4).slice([tensor] * 4, [pattern], [0] * 4)  # starts the workers in the parent
    expected = tensor[::2].numpy()
    child = os.fork()
    if child == 0:
        signal.alarm(60)  # a child that waits for the parent's threads dies of it
        slices = CppBackend(4).slice([tensor] * 4, [pattern], [0] * 4)
        # numpy compares: torch's own threads do not survive the fork
        os._exit(0 if all((sliced.numpy() == expected).all() for sliced in slices) else 1)
    _, status = os.waitpid(child, 0)
    assert status == 0


def test_calls_from_several_python_threads_at_once_are_right() -> None:
    tensor = torch.randn(LARGE, LARGE)
    pattern = ((0, np.arange(0, LARGE, 3)), (1, np.arange(1, LARGE, 2)))
    expected = tensor[::3, 1::2]
    wrong = []

    def work() -> None:
        for _ in range(10):
            if not all(torch.equal(got, expected) for got in CppBackend(3).slice([tensor] * 3, [pattern], [0] * 3)):
                wrong.append(True)

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
