"""A step happens as a whole or not at all, wherever it fails."""

from __future__ import annotations

import copy
import signal
import threading
from typing import Any

import pytest
import torch
from random_networks import Block, RandomNet, example, loss_of, randomize
from snapshots import snapshot

import gsprune
from gsprune.pruning import step
from gsprune.rewrite import network, verification
from gsprune.rewrite.transaction import Transaction, call_for_all

STAGES: dict[str, Any] = {
    "select_units": step,
    "plan_rewrite": network,
    "masked_output": verification,
    "keep_attention_scale": network,
    "SmallerNetwork": network,
    "watched_call": verification,
    "compare": verification,
}


def prepared() -> tuple[RandomNet, torch.optim.Optimizer, RandomNet]:
    blocks = (Block("Residual", 4, 2), Block("Dense", 3, 0), Block("Grouped", 2, 0))
    net = RandomNet(blocks, flatten=True, hidden=5).double()
    randomize(net, 0)
    optimizer = torch.optim.Adam(net.parameters())
    loss_of(net, example(net)).backward()
    optimizer.step()
    return net, optimizer, copy.deepcopy(net)


@pytest.mark.parametrize(
    ("stage", "error"),
    [
        (stage, error)
        for stage in STAGES
        for error in (RuntimeError("boom"), torch.OutOfMemoryError("no memory"), MemoryError(), KeyboardInterrupt())
        if (stage, type(error)) != ("masked_output", RuntimeError)  # a network that cannot do with zeros is no failure
    ],
)
@pytest.mark.parametrize("when", ["before", "after"])
def test_a_failure_at_any_stage_leaves_everything_bitwise_unchanged(
    stage: str, error: BaseException, when: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    net, optimizer, target = prepared()
    before, target_before = snapshot(net, optimizer), snapshot(target)
    original = getattr(STAGES[stage], stage)

    def failing(*args: Any, **kwargs: Any) -> Any:
        if when == "after":
            original(*args, **kwargs)
        raise error

    monkeypatch.setattr(STAGES[stage], stage, failing)
    with pytest.raises(type(error)):
        gsprune.prune_step(net, 0.5, optimizer=optimizer, followers=(target,), example_inputs=example(net))
    assert snapshot(net, optimizer) == before
    assert snapshot(target) == target_before


def test_an_interrupt_in_the_very_last_change_takes_all_back(monkeypatch: pytest.MonkeyPatch) -> None:
    net, optimizer, target = prepared()
    before, target_before = snapshot(net, optimizer), snapshot(target)
    original = Transaction.set_entries

    def interrupted(self: Transaction, entries: Any) -> None:
        original(self, entries)
        if any(key == "_gsprune_session" for _, key, _ in entries):
            raise KeyboardInterrupt

    monkeypatch.setattr(Transaction, "set_entries", interrupted)
    with pytest.raises(KeyboardInterrupt):
        gsprune.prune_step(net, 0.5, optimizer=optimizer, followers=(target,), example_inputs=example(net))
    assert snapshot(net, optimizer) == before
    assert snapshot(target) == target_before


def test_an_interrupt_during_the_rollback_does_not_stop_it(monkeypatch: pytest.MonkeyPatch) -> None:
    net, optimizer, target = prepared()
    before = snapshot(net, optimizer)
    original = Transaction._rollback
    interrupts = iter([True, False])

    def interrupted(self: Transaction) -> None:
        original(self)
        if next(interrupts, False):
            raise KeyboardInterrupt

    monkeypatch.setattr(Transaction, "_rollback", interrupted)
    monkeypatch.setattr(verification, "compare", lambda *_: (_ for _ in ()).throw(RuntimeError("boom")))
    with pytest.raises(RuntimeError, match="boom"):
        gsprune.prune_step(net, 0.5, optimizer=optimizer, followers=(target,), example_inputs=example(net))
    assert snapshot(net, optimizer) == before


@pytest.mark.parametrize("delay", [0.0, 0.001, 0.002, 0.004, 0.008])
def test_a_signal_cannot_land_inside_a_change(delay: float) -> None:
    cells: list[dict[int, int]] = [{} for _ in range(200_000)]
    done_when_it_landed: list[int] = []
    previous = signal.signal(signal.SIGINT, lambda *_: done_when_it_landed.append(sum(map(len, cells))))
    timer = threading.Timer(delay, signal.raise_signal, (signal.SIGINT,))
    try:
        timer.start()
        call_for_all(dict.__setitem__, cells, range(200_000), range(200_000))
        timer.join()
    finally:
        signal.signal(signal.SIGINT, previous)
    assert done_when_it_landed in ([0], [200_000])


def test_a_network_whose_forward_fails_when_smaller_is_left_alone_with_the_reason() -> None:
    class Stubborn(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first = torch.nn.Linear(4, 6)
            self.second = torch.nn.Linear(6, 2)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            h = self.first(x)
            if h.shape[1] != 6:
                raise RuntimeError("six, I said")
            return self.second(h)

    net = Stubborn()
    x = torch.randn(2, 4)
    before = snapshot(net)
    with pytest.warns(gsprune.PruneWarning, match="limited by sizes"):
        report = gsprune.prune_step(net, 0.5, example_inputs=x)
    before["state"] = True
    assert snapshot(net) == before
    assert any("six, I said" in protected.reason for protected in report.protected)


def test_integers_of_user_code_follow_only_where_the_forward_needs_them() -> None:
    class Sized(torch.nn.Module):
        """Asserts a stored width as CleanRL's IMPALA does; `extent` has the same value and must stay."""

        def __init__(self) -> None:
            super().__init__()
            self.extent = 8
            self._input_shape = (3, 8, 8)
            self._out_channels = 8
            self.conv = torch.nn.Conv2d(3, 8, 3, padding=1)
            self.head = torch.nn.Linear(8 * 8 * 8, 2)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            h = self.conv(x)
            _, height, width = self._input_shape
            assert h.shape[1:] == (self._out_channels, height, width)
            return self.head(h.flatten(1))

    net = Sized()
    x = torch.randn(2, 3, 8, 8)
    for sparsity, width in ((0.25, 6), (0.5, 4), (0.75, 2)):
        gsprune.prune_step(net, sparsity, example_inputs=x)
        assert (net.conv.out_channels, net._out_channels) == (width, width)
        assert net._input_shape == (3, 8, 8)
        assert net.extent == 8
        net(x)


def test_a_group_that_is_first_cut_in_a_later_step_is_checked_then() -> None:
    class Late(torch.nn.Module):
        """The second layer is so narrow that small sparsities leave it alone; a size of it is written into the code."""

        def __init__(self) -> None:
            super().__init__()
            self.first = torch.nn.Linear(4, 20)
            self.second = torch.nn.Linear(20, 2)
            self.third = torch.nn.Linear(2, 3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.third(self.second(torch.relu(self.first(x))).view(-1, 2))

    net = Late()
    x = torch.randn(3, 4)
    gsprune.prune_step(net, 0.2, example_inputs=x)
    report = gsprune.prune_step(net, 0.6)
    assert (net.first.out_features, net.second.out_features) == (8, 2)
    assert any(protected.names == ("second",) for protected in report.protected)
    assert net(x).shape == (3, 3)


def test_a_recurrent_layer_that_refuses_a_width_keeps_it_and_the_rest_is_pruned() -> None:
    class Projected(torch.nn.Module):
        """At half its width the projection is as wide as the state, which torch does not take for a projection."""

        def __init__(self) -> None:
            super().__init__()
            self.embed, self.head = torch.nn.Linear(4, 6), torch.nn.Linear(5, 2)
            self.cell = torch.nn.LSTM(6, 6, batch_first=True, proj_size=5)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.head(self.cell(self.embed(x))[0])

    net = Projected().double()
    report = gsprune.prune_step(net, 0.5, example_inputs=torch.randn(2, 3, 4, dtype=torch.float64))
    assert (net.embed.out_features, net.cell.hidden_size, net.cell.proj_size) == (3, 6, 5)
    assert {name for held in report.protected if "RNN parameters" in held.reason for name in held.names} == {
        "cell",
        "cell:2",
    }


def test_a_size_written_behind_a_recurrent_layer_is_found_there() -> None:
    """The check must count operations as the tracer does, which takes the layer apart."""

    class Viewed(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed, self.cell = torch.nn.Linear(4, 8), torch.nn.LSTM(8, 8, num_layers=2, batch_first=True)
            self.inner, self.head = torch.nn.Linear(8, 6), torch.nn.Linear(6, 2)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.head(torch.relu(self.inner(self.cell(self.embed(x))[0])).view(-1, 6))

    net = Viewed()
    report = gsprune.prune_step(net, 0.5, example_inputs=torch.randn(2, 3, 4))
    assert (net.embed.out_features, net.cell.hidden_size, net.inner.out_features) == (4, 4, 6)
    assert [held.names for held in report.protected if "written" in held.reason] == [("inner",)]
