"""New tensors of the GPU path: short ones share a block of torch's memory, and each has a storage of its own."""

from __future__ import annotations

import gc
import io
import pickle
import threading
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch_features import needs_exchange_table

from gsprune import _core
from gsprune.backends import bind_torch

TILES = [(1, 64), (4, 16), (16, 4)]
DTYPES = [torch.float32, torch.float64, torch.bfloat16, torch.int64, torch.bool, torch.uint8, torch.complex64]


def sliced(tensors: list[torch.Tensor]) -> list[torch.Tensor]:
    """The first half of every tensor, unfilled."""
    patterns: list[Any] = [((0, np.arange(len(tensor) // 2)),) for tensor in tensors]
    which = list(range(len(tensors)))
    return _core.launch.take_results(_core.launch.slice_tables(tensors, patterns, which, TILES, 2**20, 8, 4096).results)


@pytest.fixture
def memory() -> Iterator[list[weakref.ref[torch.Tensor]]]:
    """What torch was asked for."""
    asked: list[weakref.ref[torch.Tensor]] = []

    def recorded(*args: Any, **kwargs: Any) -> torch.Tensor:
        tensor = torch.empty_strided(*args, **kwargs)
        asked.append(weakref.ref(tensor))
        return tensor

    bind_torch(empty_strided=recorded)
    yield asked
    bind_torch()


@needs_exchange_table
def test_short_tensors_share_memory_and_long_ones_do_not(memory: list[weakref.ref[torch.Tensor]]) -> None:
    short = [torch.zeros(20 + 2 * i, 3) for i in range(40)]
    results = sliced([*short, torch.zeros(2**19, 2), torch.zeros(2**19, 2)])
    assert len(memory) == 3
    assert [len(result) for result in results] == [*(10 + i for i in range(40)), 2**18, 2**18]
    for result in results:
        assert result.untyped_storage().nbytes() == result.nbytes
        assert result.storage_offset() == 0


def test_they_do_not_overlap_whatever_their_dtypes_are() -> None:
    tensors = [torch.ones(6, 5).to(dtype) for dtype in DTYPES] + [torch.ones(7, 3, 4, 4)] * 2 + [torch.ones(2, 0)]
    tensors[-2] = tensors[-2].to(memory_format=torch.channels_last)
    results = sliced(tensors)
    for number, result in enumerate(results):
        result.fill_(number)
    for number, (result, tensor) in enumerate(zip(results, tensors, strict=True)):
        assert result.dtype == tensor.dtype
        assert torch.equal(result, torch.full_like(result, number))
        assert result.numel() == 0 or result.data_ptr() % 16 == 0
    assert results[-2].is_contiguous(memory_format=torch.channels_last)


@needs_exchange_table
@pytest.mark.parametrize("order", [1, -1])
def test_memory_goes_with_the_last_of_them(memory: list[weakref.ref[torch.Tensor]], order: int) -> None:
    results = sliced([torch.zeros(10, 4) for _ in range(5)])
    view = results[2][1:]
    for _ in range(5):
        assert memory[0]() is not None
        results.pop(0 if order == 1 else -1)
    assert memory[0]() is not None
    del view
    assert memory[0]() is None


def test_results_that_nobody_takes_leave_nothing(memory: list[weakref.ref[torch.Tensor]]) -> None:
    tensors = [torch.zeros(10, 4) for _ in range(5)]
    made = _core.launch.slice_tables(tensors, [((0, np.arange(3)),)], [0] * 5, TILES, 2**20, 8, 4096)
    assert memory[0]() is not None
    del made
    assert memory[0]() is None


def test_results_are_taken_once() -> None:
    tensors = [torch.zeros(10, 4)] * 2
    results = _core.launch.slice_tables(tensors, [((0, np.arange(3)),)], [0] * 2, TILES, 2**20, 8, 4096).results
    assert len(_core.launch.take_results(results)) == 2
    with pytest.raises(RuntimeError, match="`results` were taken before"):
        _core.launch.take_results(results)
    with pytest.raises(ValueError, match="incorrect name"):
        _core.launch.take_results(_core.launch.prepare_exchange([torch.zeros(2)], 0, []))


def test_a_thread_without_the_gil_may_let_go_of_the_last(memory: list[weakref.ref[torch.Tensor]]) -> None:
    results = sliced([torch.ones(10, 4) for _ in range(3)])
    for result in results:
        result.fill_(1)
    # What a graph has saved is let go of by the thread of the engine that runs its backward.
    leaf = torch.ones(5, 4, requires_grad=True)
    loss = torch.stack([(result * leaf).sum() for result in results]).sum()
    del results, result
    assert memory[0]() is not None
    done = threading.Thread(target=loss.backward)
    done.start()
    done.join()
    assert memory[0]() is None


@pytest.mark.parametrize("copy", [lambda tensor: pickle.loads(pickle.dumps(tensor)), torch.clone])
def test_they_are_saved_without_their_neighbours(copy: Callable[[torch.Tensor], torch.Tensor]) -> None:
    results = sliced([torch.zeros(2, 8) for _ in range(300)])
    results[5].fill_(5)
    file = io.BytesIO()
    torch.save(copy(results[5]), file)
    assert len(file.getvalue()) < 3000
    assert torch.equal(torch.load(io.BytesIO(file.getvalue())), results[5])


@needs_exchange_table
def test_no_memory_leaves_nothing(memory: list[weakref.ref[torch.Tensor]]) -> None:
    testcapi = pytest.importorskip("_testcapi", reason="this Python was built without its test modules")
    tensors = [torch.zeros(10, 4) for _ in range(4)]
    pattern: list[Any] = [((0, np.arange(3)),)]
    failed = 0
    for number in range(100):
        made = _core.launch.slice_tables(tensors, pattern, [0] * 4, TILES, 2**20, 8, 4096).results
        testcapi.set_nomemory(number, number + 1)
        try:
            results = _core.launch.take_results(made)
        except (MemoryError, RuntimeError):
            testcapi.remove_mem_hooks()
            failed += 1
        else:
            testcapi.remove_mem_hooks()
            del results, made
            break
        with pytest.raises(RuntimeError, match="`results` were taken before"):
            _core.launch.take_results(made)
        del made
        gc.collect()
        assert memory[-1]() is None
    assert failed
    assert memory[-1]() is None
