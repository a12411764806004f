"""What the core tells the Triton kernels, and its exchange of tensors: with torch's exchange table and without one.

That the tables are right is for tests/kernels to say, which run the kernels.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch

from gsprune import _core

TILES = [(1, 64), (4, 16), (16, 4)]
KEEP = np.array([0, 2])


def _bind(api: object) -> None:
    dtypes = {torch.float32: 0, torch.float64: 1, torch.bfloat16: 2, torch.float16: 3}
    _core.bind_torch(torch.Tensor, api, torch.empty_strided, dtypes)


@pytest.fixture(params=["exchange table", "attributes"], autouse=True)
def reading(request: pytest.FixtureRequest) -> Iterator[None]:
    """The two ways in which the core reads tensors; a torch before 2.10 has no exchange table."""
    api = getattr(torch.Tensor, "__dlpack_c_exchange_api__", None)
    _bind(api if request.param == "exchange table" else None)
    yield
    _bind(api)


def _score_table(tensors: list[torch.Tensor], others: Any = None) -> tuple[Any, ...]:
    statistic = "abs" if others is None else "product"
    return _core.score_tables(tensors, [(0, 1)] * len(tensors), others, statistic, TILES, 32, 16, 2048)


def _slice_table(tensors: list[torch.Tensor], keep: np.ndarray = KEEP) -> tuple[Any, ...]:
    return _core.slice_tables(tensors, [((0, keep),)], [0] * len(tensors), TILES, 2**20)


def test_addresses_and_layouts_are_those_of_the_tensors() -> None:
    tensors = [torch.zeros(6, 5), torch.zeros(4, 3, 2, 2).to(memory_format=torch.channels_last), torch.zeros(9, 4)[2:]]
    table, num_jobs, *_, copies = _score_table(tensors)
    assert [int(table[num_jobs + 10 * job]) for job in range(num_jobs)] == [tensor.data_ptr() for tensor in tensors]
    assert copies == []
    results, table, num_jobs, *_, copies = _slice_table(tensors)
    for job, (tensor, result) in enumerate(zip(tensors, results, strict=True)):
        assert table[num_jobs + 15 * job :][:2].tolist() == [tensor.data_ptr(), result.data_ptr()]
        assert result.dtype == tensor.dtype
        assert result.untyped_storage().nbytes() == result.nbytes
    assert results[1].is_contiguous(memory_format=torch.channels_last)
    assert copies == []


def test_tensors_with_gaps_and_seconds_that_lie_differently_are_copied() -> None:
    gappy = torch.arange(60.0).view(6, 10)[:, ::2]
    gradient = torch.arange(30.0).view(5, 6).T
    table, num_jobs, *_, copies = _score_table([gappy], [gradient])
    assert [torch.equal(copy, wanted) for copy, wanted in zip(copies, (gappy, gradient), strict=True)] == [True, True]
    assert all(copy.is_contiguous() for copy in copies)
    assert table[num_jobs:][:2].tolist() == [copy.data_ptr() for copy in copies]
    *_, copies = _slice_table([gappy])
    assert torch.equal(copies[0], gappy)


def test_nothing_is_no_job() -> None:
    assert _score_table([])[1:8] == (0, 0, 0, 0, 0, 0, 0)
    results, _, num_jobs, _, programs, copies = _slice_table([])
    assert (results, num_jobs, programs, copies) == ([], 0, 0, [])


@pytest.mark.parametrize("tiles", [[], [(0, 4)], [(4, -1)]])
def test_tiles_that_cannot_be_are_refused(tiles: list[tuple[int, int]]) -> None:
    with pytest.raises(ValueError, match="`tiles` must"):
        _core.slice_tables([torch.zeros(4)], [((0, KEEP),)], [0], tiles, 2**20)
    with pytest.raises(ValueError, match="`tiles` must"):
        _core.score_tables([torch.zeros(4)], [(0,)], None, "abs", tiles, 32, 16, 2048)


@pytest.mark.parametrize("number", ["fold_outputs", "max_steps", "busy_tiles"])
def test_numbers_that_cannot_be_are_refused(number: str) -> None:
    numbers = {"fold_outputs": 32, "max_steps": 16, "busy_tiles": 2048, number: 0}
    with pytest.raises(ValueError, match=f"`{number}`"):
        _core.score_tables([torch.zeros(4)], [(0,)], None, "abs", TILES, **numbers)


def test_what_is_elsewhere_is_refused() -> None:
    for tensors in ([torch.zeros(4, 4, device="meta")], [torch.zeros(4, 4), torch.zeros(4, 4, device="meta")]):
        index = len(tensors) - 1
        with pytest.raises(ValueError, match=rf"`tensors\[{index}\]` must be"):
            _slice_table(tensors)
        with pytest.raises(ValueError, match=rf"`tensors\[{index}\]` must be"):
            _score_table(tensors)


def _exchangeable() -> tuple[list[torch.Tensor], list[torch.Tensor]]:
    weight = torch.nn.Parameter(torch.arange(12.0).view(6, 2)[1:5])  # behind the beginning of its storage
    tensors = [weight, torch.arange(8.0).view(4, 2), torch.zeros(4, 0)]
    return tensors, [tensor.detach()[::2].clone() for tensor in tensors]


def test_an_exchange_gives_every_tensor_its_replacements_storage() -> None:
    tensors, replacements = _exchangeable()
    expected = [replacement.clone() for replacement in replacements]
    versions = [tensor._version for tensor in tensors]
    state: dict[str, int] = {"old": 1}
    with torch.no_grad():
        _core.exchange(tensors, replacements, 1, [(state, "old", 2), (state, "new", 3)])
    for tensor, replacement, wanted, version in zip(tensors, replacements, expected, versions, strict=True):
        assert torch.equal(tensor, wanted)
        assert tensor.untyped_storage().data_ptr() == replacement.untyped_storage().data_ptr()
        assert tensor._version > version
    assert isinstance(tensors[0], torch.nn.Parameter)
    assert state == {"old": 2, "new": 3}


def test_an_exchange_that_runs_out_of_memory_takes_everything_back() -> None:
    testcapi = pytest.importorskip("_testcapi", reason="this Python was built without its test modules")
    failures = 0
    for number in range(0, 60, 2):
        tensors, replacements = _exchangeable()
        expected = [tensor.detach().clone() for tensor in tensors]
        places = [(tensor.data_ptr(), tensor.storage_offset(), tensor.stride()) for tensor in tensors]
        state: dict[str, int] = {"old": 1}
        arguments = (tensors, replacements, 1, [(state, "old", 2)])
        with torch.no_grad():
            testcapi.set_nomemory(number, number + 1)
            try:
                _core.exchange(*arguments)
            except (MemoryError, RuntimeError):
                testcapi.remove_mem_hooks()
                failures += 1
                for tensor, wanted, place in zip(tensors, expected, places, strict=True):
                    assert torch.equal(tensor, wanted)
                    assert (tensor.data_ptr(), tensor.storage_offset(), tensor.stride()) == place
                assert state == {"old": 1}
            else:
                testcapi.remove_mem_hooks()
                assert state == {"old": 2}
    assert failures


def test_an_exchange_checks_its_arguments_first() -> None:
    tensors, replacements = _exchangeable()
    with pytest.raises(ValueError, match="`replacements` must have an entry per tensor, that is 3, got 2"):
        _core.exchange(tensors, replacements[:2], 1, [])
    with pytest.raises(TypeError, match=r"`entries\[0\]` must be \(dictionary, key, value\)"):
        _core.exchange(tensors, replacements, 1, ["no entry"])
    with pytest.raises(ValueError, match=r"`tensors\[1\]` must be"):
        _core.exchange([tensors[0], torch.zeros(4, 2, device="meta")], replacements[:2], 1, [])
    assert [tuple(tensor.shape) for tensor in tensors] == [(4, 2), (4, 2), (4, 0)]
