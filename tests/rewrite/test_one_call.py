"""Where nothing must be looked at, a step is one call of the core: the same step, and as whole."""

from __future__ import annotations

import copy
import signal
import threading
from typing import Any

import numpy as np
import pytest
import torch
from hashed_once import HashedOnce
from hypothesis import given, settings
from random_networks import RandomNet, example, loss_of, networks, randomize
from snapshots import frozen, snapshot
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

import gsprune
from gsprune import _core
from gsprune.backends import CppBackend
from gsprune.rewrite import network
from gsprune.rewrite.session import session_of

Training = tuple[RandomNet, torch.optim.Optimizer, RandomNet]
HALF = [((0, np.array([0, 2], dtype=np.int64)),)]


def begun(net: RandomNet) -> Training:
    """A network whose groups have all been cut and checked once, so that the next step need not look."""
    randomize(net, 0)
    optimizer = torch.optim.Adam(net.parameters())
    loss_of(net, example(net)).backward()
    optimizer.step()
    target = copy.deepcopy(net)
    gsprune.prune_step(net, 0.3, optimizer=optimizer, followers=(target,), example_inputs=example(net))
    return net, optimizer, target


def contents(training: Training) -> list[Any]:
    net, optimizer, target = training
    held = [snapshot(net, optimizer), snapshot(target)]
    for part in held:
        del part["identities"]
    kept = [state.kept for each in (net, target) if (state := session_of(each)) is not None]
    lists = [{name: {axis: k.tolist() for axis, k in axes.items()} for name, axes in one.items()} for one in kept]
    return [held, lists]


class Calls:
    """Counts how often the core rewrote everything in one call."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.count = 0
        original = CppBackend.rewrite

        def counted(backend: CppBackend, *args: Any) -> None:
            self.count += 1
            original(backend, *args)

        monkeypatch.setattr(CppBackend, "rewrite", counted)


@given(net=networks())
@settings(max_examples=max(3, settings().max_examples // 5))
def test_a_step_in_one_call_is_the_step_of_a_transaction_bit_for_bit(net: RandomNet) -> None:
    first, second = begun(copy.deepcopy(net)), begun(net)
    with pytest.MonkeyPatch.context() as patch:
        calls = Calls(patch)
        reports = [gsprune.prune_step(first[0], 0.6, optimizer=first[1], followers=(first[2],))]
        in_one_call = calls.count
        patch.setattr(network, "_can_be_one_call", lambda _: False)
        reports.append(gsprune.prune_step(second[0], 0.6, optimizer=second[1], followers=(second[2],)))
        assert calls.count == in_one_call
    assert reports[0].changed == reports[1].changed
    assert contents(first) == contents(second)


def test_steps_after_the_first_are_one_call(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = Calls(monkeypatch)
    net = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))
    optimizer = torch.optim.Adam(net.parameters())
    for step, sparsity in enumerate((0.25, 0.5, 0.75)):
        net(torch.ones(1, 4)).sum().backward()
        optimizer.step()
        assert gsprune.prune_step(net, sparsity, optimizer=optimizer, example_inputs=torch.ones(1, 4)).changed
        assert calls.count == step


def test_the_next_backward_works_while_a_loss_of_before_is_held(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = Calls(monkeypatch)
    net = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))
    gsprune.prune_step(net, 0.25, example_inputs=torch.ones(1, 4))
    held = net(torch.ones(1, 4)).sum()
    gsprune.prune_step(net, 0.5)
    assert calls.count == 1
    net(torch.ones(1, 4)).sum().backward()
    assert net[0].weight.grad is not None
    assert net[0].weight.grad.shape == (4, 4)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        held.backward()


def test_parameters_that_are_frozen_for_the_step_alone_get_gradients_again(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = Calls(monkeypatch)
    net = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))
    gsprune.prune_step(net, 0.25, example_inputs=torch.ones(1, 4))
    held = net(torch.ones(1, 4)).sum()  # knows the parameters' accumulators
    net.requires_grad_(False)
    gsprune.prune_step(net, 0.5)
    net.requires_grad_(True)
    assert calls.count == 1
    net(torch.ones(1, 4)).sum().backward()
    assert held.grad_fn is not None
    assert [tuple(p.grad.shape) for p in net.parameters() if p.grad is not None] == [(4, 4), (4,), (2, 4), (2,)]


def test_a_layer_that_was_replaced_between_steps_is_cut_in_its_place() -> None:
    net = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))
    gsprune.prune_step(net, 0.25, example_inputs=torch.ones(1, 4))
    old, net[2] = net[2], nn.Linear(6, 2)
    gsprune.prune_step(net, 0.5)
    assert net(torch.ones(1, 4)).shape == (1, 2)
    assert old.weight.shape == (2, 6)


def test_memory_that_runs_out_anywhere_leaves_no_tensor_half_exchanged() -> None:
    testcapi = pytest.importorskip("_testcapi", reason="this Python was built without its test modules")
    for number in range(0, 120, 3):
        tensors = [torch.arange(12.0).view(3, 4) for _ in range(6)]
        places, attributes = [tensor.data_ptr() for tensor in tensors], {"size": 3}
        arguments = (tensors, HALF, [0] * 6, 3, [(attributes, "size", 2)], 1, "auto")
        testcapi.set_nomemory(number, number + 1)
        try:
            _core.rewrite(*arguments)
        except (MemoryError, RuntimeError):
            testcapi.remove_mem_hooks()
            assert [tensor.data_ptr() for tensor in tensors] == places
            assert [len(tensor) for tensor in tensors] == [3] * 6
            assert attributes == {"size": 3}
        else:
            testcapi.remove_mem_hooks()
            assert [len(tensor) for tensor in tensors] == [2] * 6
            assert attributes == {"size": 2}


class TakesMemoryAway(TorchFunctionMode):
    """Python code that torch runs in the middle of the call, and that gives a tensor's memory back."""

    def __init__(self, victim: Tensor) -> None:
        super().__init__()
        self.victim = victim

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if function is Tensor.untyped_storage:
            with torch._C.DisableTorchFunction():
                self.victim.set_(torch.empty(0, 1000))
        return function(*args, **(kwargs or {}))


def test_memory_that_python_code_takes_away_meanwhile_is_not_read() -> None:
    first, victim = torch.randn(10, 10), torch.randn(4000, 1000)
    before = first.clone()
    patterns = [((0, np.arange(5)),), ((0, np.arange(0, 4000, 2)),)]
    with TakesMemoryAway(victim), pytest.raises(ValueError, match=r"which must be < 0, its size in `tensors\[1\]`"):
        _core.rewrite([first, victim], patterns, [0, 1], 0, [], 2, "auto")
    assert torch.equal(first, before)


def test_what_is_taken_back_lies_where_it_lay_with_or_without_elements() -> None:
    tensors = [torch.arange(50.0)[10:22].view(3, 4), torch.randn(50)[10:40].view(3, 10)[:, :0], torch.randn(9, 4)[::3]]
    places = [(t.data_ptr(), t.storage_offset(), t.shape, t.stride(), t.clone()) for t in tensors]
    with pytest.raises(RuntimeError, match="no second time"):
        _core.rewrite(tensors, HALF, [0] * 3, 1, [({}, HashedOnce(), 1)], 1, "auto")
    for tensor, (address, offset, shape, strides, values) in zip(tensors, places, strict=True):
        assert (tensor.data_ptr(), tensor.storage_offset()) == (address, offset)
        assert (tensor.shape, tensor.stride()) == (shape, strides)
        assert torch.equal(tensor, values)


def test_every_tensor_that_was_cut_has_a_higher_version(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = Calls(monkeypatch)
    net, optimizer, _ = begun(RandomNet((), flatten=True, hidden=5))
    tensors = [*net.parameters(), *net.buffers(), *[p.grad for p in net.parameters() if p.grad is not None]]
    tensors += [value for state in optimizer.state.values() for value in state.values() if isinstance(value, Tensor)]
    before = [(tuple(tensor.shape), tensor._version) for tensor in tensors]
    gsprune.prune_step(net, 0.7, optimizer=optimizer)
    assert calls.count == 1
    cut = [(tensor, version) for tensor, (shape, version) in zip(tensors, before, strict=True) if tensor.shape != shape]
    assert len(cut) > 8
    assert all(tensor._version > version for tensor, version in cut)


class Stubborn(Tensor):
    """Takes no other memory, so often."""

    refusals: list[BaseException]

    @property
    def data(self) -> Tensor:
        return Tensor.data.__get__(self)

    @data.setter
    def data(self, value: Tensor) -> None:
        if self.refusals:
            raise self.refusals.pop()
        Tensor.data.__set__(self, value)


def stubborn(*refusals: BaseException) -> Stubborn:
    tensor = torch.arange(9.0).view(3, 3).as_subclass(Stubborn)
    tensor.refusals = list(refusals)
    return tensor


@pytest.mark.parametrize("error", [RuntimeError("no"), MemoryError("no"), KeyboardInterrupt("no")])
def test_a_tensor_that_refuses_takes_the_others_back(error: BaseException) -> None:
    parameter, moment, last = nn.Parameter(torch.rand(3, 3)), torch.rand(3), stubborn(error)
    tensors = [parameter, moment, last]
    before, places = frozen([t.detach() for t in tensors]), [t.data_ptr() for t in tensors]
    attributes = {"size": 3}
    with pytest.raises(type(error), match="no"), torch.no_grad():
        _core.rewrite(tensors, HALF, [0, 0, 0], 0, [(attributes, "size", 2)], 1, "auto")
    assert frozen([t.detach() for t in tensors]) == before
    assert [t.data_ptr() for t in tensors] == places
    assert attributes == {"size": 3}
    with torch.no_grad():
        _core.rewrite(tensors, HALF, [0, 0, 0], 0, [(attributes, "size", 2)], 1, "auto")
    assert [tuple(t.shape) for t in tensors] == [(2, 3), (2,), (2, 3)]
    assert attributes == {"size": 2}


def test_an_entry_that_cannot_be_set_takes_everything_back() -> None:
    class Unequal:
        """A key that can be looked up once, for what stood there before."""

        lookups = 0

        def __hash__(self) -> int:
            self.lookups += 1
            if self.lookups > 1:
                raise RuntimeError("no more")
            return 1

    tensor, attributes = torch.arange(3.0), {"a": 1, "b": 2}
    entries: list[tuple[dict[Any, Any], Any, Any]] = [
        (attributes, "a", 5),
        (attributes, "c", 6),
        (attributes, Unequal(), 7),
    ]
    with pytest.raises(RuntimeError, match="no more"):
        _core.rewrite([tensor], HALF, [0], 0, entries, 1, "auto")
    assert tensor.tolist() == [0.0, 1.0, 2.0]
    assert attributes == {"a": 1, "b": 2}


def test_views_of_the_old_memory_keep_it() -> None:
    tensor = torch.arange(12.0).view(3, 4)
    view = tensor[1]
    _core.rewrite([tensor], HALF, [0], 0, [], 1, "auto")
    assert tensor.tolist() == [[0.0, 1.0, 2.0, 3.0], [8.0, 9.0, 10.0, 11.0]]
    assert view.tolist() == [4.0, 5.0, 6.0, 7.0]


def test_a_tensor_given_twice_is_cut_once() -> None:
    tensor = torch.arange(3.0)
    _core.rewrite([tensor, tensor], HALF, [0, 0], 0, [], 1, "auto")
    assert tensor.tolist() == [0.0, 2.0]


@pytest.mark.parametrize(
    ("entries", "message"),
    [([None], r"`entries\[0\]`"), ([({}, 1)], r"`entries\[0\]`"), ([({}, 1, 2), ([], 0, 1)], r"`entries\[1\]`")],
)
def test_entries_of_another_kind_are_refused_before_anything_is_changed(entries: Any, message: str) -> None:
    tensor = torch.arange(3.0)
    with pytest.raises(TypeError, match=message):
        _core.rewrite([tensor], HALF, [0], 0, entries, 1, "auto")
    assert tensor.tolist() == [0.0, 1.0, 2.0]


@pytest.mark.parametrize("delay", [0.0, 0.001, 0.002, 0.004])
def test_a_signal_finds_all_of_it_done_or_nothing(delay: float) -> None:
    tensors = [torch.arange(15.0).view(3, 5) for _ in range(20_000)]
    seen: list[set[tuple[float, ...]]] = []
    previous = signal.signal(signal.SIGINT, lambda *_: seen.append({tuple(t[:, 0].tolist()) for t in tensors}))
    timer = threading.Timer(delay, signal.raise_signal, (signal.SIGINT,))
    try:
        timer.start()
        _core.rewrite(tensors, HALF, [0] * len(tensors), 0, [], 1, "auto")
        timer.join()
    finally:
        signal.signal(signal.SIGINT, previous)
    assert seen in ([{(0.0, 5.0, 10.0)}], [{(0.0, 10.0)}])
