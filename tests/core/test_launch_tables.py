"""What the core tells the Triton kernels, and its exchange of tensors: with torch's exchange table and without one.

That the tables are right is for tests/kernels to say, which run the kernels.
"""

from __future__ import annotations

import datetime
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch.overrides import TorchFunctionMode

from gsprune import _core
from gsprune.backends import bind_torch

TILES = [(1, 64), (4, 16), (16, 4)]
KEEP = np.array([0, 2])


class Wrapper(torch.Tensor):
    """A tensor without memory of its own, as DTensor is."""

    @classmethod
    def __torch_dispatch__(cls, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        raise NotImplementedError


@pytest.fixture(params=["exchange table", "attributes"], autouse=True)
def reading(request: pytest.FixtureRequest) -> Iterator[None]:
    """The two ways in which the core reads tensors; a torch before 2.10 has no exchange table."""
    if request.param == "attributes":
        bind_torch(None)
    yield
    bind_torch()


def _score_table(tensors: list[torch.Tensor], others: Any = None) -> Any:
    statistic = "abs" if others is None else "product"
    return _core.launch.score_tables(tensors, [(0, 1)] * len(tensors), others, statistic, TILES, 32, 16, 2048)


def _slice_table(tensors: list[torch.Tensor], keep: np.ndarray = KEEP) -> tuple[list[torch.Tensor], Any]:
    """The new tensors, and all else that is told of them."""
    pattern_of = [0] * len(tensors)
    launch = _core.launch.slice_tables(tensors, [((0, keep),)], pattern_of, TILES, 2**20, 8, 4096)
    return _core.launch.take_results(launch.results), launch


def test_addresses_and_layouts_are_those_of_the_tensors() -> None:
    tensors = [torch.zeros(6, 5), torch.zeros(4, 3, 2, 2).to(memory_format=torch.channels_last), torch.zeros(9, 4)[2:]]
    made = _score_table(tensors)
    assert [int(made.table[11 * job + 1]) for job in range(made.num_jobs)] == [tensor.data_ptr() for tensor in tensors]
    assert made.copies == []
    results, made = _slice_table(tensors)
    for job, (tensor, result) in enumerate(zip(tensors, results, strict=True)):
        assert made.table[17 * job + 1 :][:2].tolist() == [tensor.data_ptr(), result.data_ptr()]
        assert result.dtype == tensor.dtype
        assert result.untyped_storage().nbytes() == result.nbytes
    assert results[1].is_contiguous(memory_format=torch.channels_last)
    assert made.copies == []


def test_tensors_with_gaps_and_seconds_that_lie_differently_are_copied() -> None:
    gappy = torch.arange(60.0).view(6, 10)[:, ::2]
    gradient = torch.arange(30.0).view(5, 6).T
    made = _score_table([gappy], [gradient])
    copies = made.copies
    assert [torch.equal(copy, wanted) for copy, wanted in zip(copies, (gappy, gradient), strict=True)] == [True, True]
    assert all(copy.is_contiguous() for copy in copies)
    assert made.table[1:3].tolist() == [copy.data_ptr() for copy in copies]
    _, made = _slice_table([gappy])
    assert torch.equal(made.copies[0], gappy)


def test_nothing_is_no_job() -> None:
    made = vars(_score_table([]))
    assert (made.pop("copies"), made.pop("table").size) == ([], 0)
    assert set(made.values()) == {0}
    results, made = _slice_table([])
    assert (results, made.num_jobs, made.programs, made.copies) == ([], 0, 0, [])


@pytest.mark.parametrize("tiles", [[], [(0, 4)], [(4, -1)]])
def test_tiles_that_cannot_be_are_refused(tiles: list[tuple[int, int]]) -> None:
    with pytest.raises(ValueError, match="`tiles` must"):
        _core.launch.slice_tables([torch.zeros(4)], [((0, KEEP),)], [0], tiles, 2**20, 8, 4096)
    with pytest.raises(ValueError, match="`tiles` must"):
        _core.launch.score_tables([torch.zeros(4)], [(0,)], None, "abs", tiles, 32, 16, 2048)


@pytest.mark.parametrize("number", ["fold_outputs", "max_steps", "busy_tiles"])
def test_numbers_that_cannot_be_are_refused(number: str) -> None:
    numbers = {"fold_outputs": 32, "max_steps": 16, "busy_tiles": 2048, number: 0}
    with pytest.raises(ValueError, match=f"`{number}`"):
        _core.launch.score_tables([torch.zeros(4)], [(0,)], None, "abs", TILES, **numbers)
    if numbers.pop("fold_outputs"):
        with pytest.raises(ValueError, match=f"`{number}`"):
            _core.launch.slice_tables([torch.zeros(4)], [((0, KEEP),)], [0], TILES, 2**20, **numbers)


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


def _exchange(tensors: list[torch.Tensor], replacements: list[torch.Tensor], entries: list[Any]) -> None:
    _core.launch.install_exchange(_core.launch.prepare_exchange(tensors, 1, entries), replacements)


def test_an_exchange_gives_every_tensor_its_replacements_storage() -> None:
    tensors, replacements = _exchangeable()
    expected = [replacement.clone() for replacement in replacements]
    versions = [tensor._version for tensor in tensors]
    state: dict[str, int] = {"old": 1}
    with torch.no_grad():
        _exchange(tensors, replacements, [(state, "old", 2), (state, "new", 3)])
    for tensor, replacement, wanted, version in zip(tensors, replacements, expected, versions, strict=True):
        assert torch.equal(tensor, wanted)
        assert tensor.untyped_storage().data_ptr() == replacement.untyped_storage().data_ptr()
        assert tensor._version > version
    assert isinstance(tensors[0], torch.nn.Parameter)
    assert state == {"old": 2, "new": 3}


def test_an_exchange_that_runs_out_of_memory_takes_everything_back() -> None:
    testcapi = pytest.importorskip("_testcapi", reason="this Python was built without its test modules")
    had_begun = False
    for number in range(200):
        tensors, replacements = _exchangeable()
        expected = [tensor.detach().clone() for tensor in tensors]
        places = [(tensor.data_ptr(), tensor.storage_offset(), tensor.stride()) for tensor in tensors]
        version = tensors[0]._version
        state: dict[str, int] = {"old": 1}
        arguments = (tensors, replacements, [(state, "old", 2)])
        with torch.no_grad():
            testcapi.set_nomemory(number, number + 1)
            try:
                _exchange(*arguments)
            except (MemoryError, RuntimeError):
                testcapi.remove_mem_hooks()
            else:
                testcapi.remove_mem_hooks()
                if state == {"old": 2}:
                    break
        had_begun |= tensors[0]._version > version
        for tensor, wanted, place in zip(tensors, expected, places, strict=True):
            assert torch.equal(tensor, wanted)
            assert (tensor.data_ptr(), tensor.storage_offset(), tensor.stride()) == place
        assert state == {"old": 1}
    assert number > 3
    assert had_begun


def test_an_exchange_checks_its_arguments_first() -> None:
    tensors, replacements = _exchangeable()
    with pytest.raises(ValueError, match="`replacements` must have an entry per tensor, that is 3, got 2"):
        _exchange(tensors, replacements[:2], [])
    with pytest.raises(TypeError, match=r"`entries\[0\]` must be \(dictionary, key, value\)"):
        _core.launch.prepare_exchange(tensors, 1, ["no entry"])  # type: ignore[list-item]
    with pytest.raises(ValueError, match=r"`tensors\[1\]` must be"):
        _core.launch.prepare_exchange([tensors[0], torch.zeros(4, 2, device="meta")], 1, [])
    with pytest.raises(ValueError, match="incorrect name"):
        _core.launch.install_exchange(datetime.datetime_CAPI, replacements)
    assert [tuple(tensor.shape) for tensor in tensors] == [(4, 2), (4, 2), (4, 0)]


def test_an_exchange_keeps_memory_and_notices_what_was_changed_meanwhile() -> None:
    for change in (
        lambda tensor: tensor.set_(torch.ones(4, 2)),
        lambda tensor: tensor.t_(),
        lambda tensor: tensor.set_(),
    ):
        tensors, replacements = _exchangeable()
        exchange = _core.launch.prepare_exchange(tensors, 1, [])
        change(tensors[1])
        with pytest.raises(RuntimeError, match=r"`tensors\[1\]` was changed while it was sliced"), torch.no_grad():
            _core.launch.install_exchange(exchange, replacements)
        assert tensors[0].shape == (4, 2)


def test_an_exchange_is_of_what_the_lists_held_and_serves_once() -> None:
    tensors, replacements = _exchangeable()
    state = {"old": 1}
    entries: list[Any] = [(state, "old", 2)]
    exchange = _core.launch.prepare_exchange(tensors, 1, entries)
    entries.append("no entry")
    tensors.append(torch.zeros(2))
    with torch.no_grad():
        _core.launch.install_exchange(exchange, replacements)
        assert (state, [len(tensor) for tensor in tensors]) == ({"old": 2}, [2, 2, 2, 2])
        with pytest.raises(RuntimeError, match="`exchange` was installed before"):
            _core.launch.install_exchange(exchange, replacements)


def test_a_prepared_exchange_keeps_the_tensors_memory() -> None:
    tensor = torch.full((1000,), 7.0)
    address = tensor.data_ptr()
    exchange = _core.launch.prepare_exchange([tensor], 0, [])
    tensor.set_()
    assert all(torch.zeros(1000).data_ptr() != address for _ in range(20))  # malloc would give it again at once
    del exchange


@pytest.mark.parametrize("make_table", [_slice_table, _score_table])
def test_addresses_are_read_when_no_python_code_runs_any_more(make_table: Callable[..., tuple[Any, ...]]) -> None:
    tensors = [torch.ones(6, 5), torch.ones(6, 10)[:, ::2]]
    moved = torch.zeros(6, 5)

    class Mover(TorchFunctionMode):
        def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            if function is torch.empty_strided:
                tensors[0].set_(moved)
            return function(*args, **(kwargs or {}))

    with Mover():
        made = make_table(tensors)
    table = made[1].table if make_table is _slice_table else made.table
    assert int(table[1]) == moved.data_ptr()

    class Shrinker(TorchFunctionMode):
        def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            if function is torch.empty_strided:
                tensors[0].set_(torch.ones(2, 2))
            return function(*args, **(kwargs or {}))

    with Shrinker(), pytest.raises(RuntimeError, match=r"`tensors\[0\]` changed its layout"):
        make_table(tensors)


def test_what_has_no_memory_of_its_own_is_refused() -> None:
    emptied = torch.zeros(50)
    views = [emptied[:16].view(4, 4), emptied[20:36].view(4, 4)]
    emptied.untyped_storage().resize_(0)
    wrappers = [
        torch.Tensor._make_wrapper_subclass(Wrapper, (4, 4), strides=(4, 1), storage_offset=offset)
        for offset in (0, 64, 10**6)
    ]
    for tensor in (*wrappers, *views):
        for call in (
            lambda tensor=tensor: _slice_table([tensor]),
            lambda tensor=tensor: _score_table([tensor]),
            lambda tensor=tensor: _core.slice.slice([tensor], [((0, KEEP),)], [0], 1, "auto"),
            lambda tensor=tensor: _core.score.axis_sums([tensor], [(0,)], None, "abs", 1, "auto"),
        ):
            with pytest.raises(ValueError, match=r"`tensors\[0\]` must be .* one without memory of its own: <class"):
                call()


@pytest.mark.parametrize("bad", ["x", None, 1.5, 2**70])
def test_what_is_no_integer_is_named(bad: object) -> None:
    tensor = torch.ones(4, 4)
    for name, call in {
        r"pattern_of\[0\]": lambda: _core.launch.slice_tables([tensor], [((0, KEEP),)], [bad], TILES, 99, 8, 4096),
        r"patterns\[0\]": lambda: _core.launch.slice_tables([tensor], [((bad, KEEP),)], [0], TILES, 99, 8, 4096),
        r"axes\[0\]": lambda: _core.launch.score_tables([tensor], [(bad,)], None, "abs", TILES, 32, 16, 2048),
    }.items():
        with pytest.raises(TypeError, match=f"`{name}` needs integers that fit 64 bits, got"):
            call()
    with pytest.raises(TypeError, match=r"`axes\[0\]` must be a tuple of integers, got 3"):
        _core.launch.score_tables([tensor], [3], None, "abs", TILES, 32, 16, 2048)  # type: ignore[list-item]
