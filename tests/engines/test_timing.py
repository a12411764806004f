from __future__ import annotations

import time

import pytest
import torch

from gsprune.engines.timing import Latency, forwards_in_turns, torch_threads, undisturbed_milliseconds


def test_the_median_of_undisturbed_calls_leaves_interrupted_ones_out() -> None:
    timing = Latency((0.001,) * 11 + (0.05,) * 30, 1, "cpu", 1, (False,) * 11 + (True,) * 30)
    assert timing.is_quiet
    assert timing.undisturbed_calls == 11
    assert 1e3 * timing.undisturbed == pytest.approx(1.0)
    assert 1e3 * timing.median == pytest.approx(50.0)
    assert 1e3 * timing.p99 == pytest.approx(50.0)


def test_with_too_few_undisturbed_calls_the_fastest_tenth_speaks() -> None:
    timing = Latency(tuple(range(1, 102)), 1, "cpu", 1, (False,) * 9 + (True,) * 92)
    assert not timing.is_quiet
    assert timing.undisturbed == pytest.approx(11)


def test_forwards_run_in_turns_with_the_threads_asked_for() -> None:
    order: list[tuple[str, int]] = []
    runs = [lambda name=name: order.append((name, torch.get_num_threads())) for name in "ab"]
    before = torch.get_num_threads()
    timings = forwards_in_turns(runs, 3, calls=4, warmup=1)
    assert torch.get_num_threads() == before
    assert [len(timing.seconds) for timing in timings] == [4, 4]
    assert [len(timing.interrupted) for timing in timings] == [4, 4]
    assert {count for _, count in order} == {3}


def test_quick_forwards_have_turns_of_several_calls_and_the_first_of_each_is_dropped() -> None:
    order: list[str] = []
    forwards_in_turns([lambda: order.append("a"), lambda: order.append("b")], 1, calls=20, warmup=1)
    assert "".join(order) == "ab" + "ab" + "a" * 11 + "b" * 11 + "b" * 11 + "a" * 11


def test_slow_forwards_change_with_every_call() -> None:
    order: list[str] = []

    def slow(name: str) -> None:
        order.append(name)
        time.sleep(0.06)

    forwards_in_turns([lambda: slow("a"), lambda: slow("b")], 1, calls=2, warmup=0)
    assert "".join(order) == "ab" + "abba"


def test_threads_come_back_after_an_error() -> None:
    before = torch.get_num_threads()
    with pytest.raises(RuntimeError, match="stop"), torch_threads(before + 1):
        raise RuntimeError("stop")
    assert torch.get_num_threads() == before


def test_one_forward_is_measured_until_enough_calls_were_made() -> None:
    calls: list[None] = []
    milliseconds = undisturbed_milliseconds(lambda: calls.append(None), 1, seconds=0.01, patience=0.0)
    assert milliseconds >= 0
    assert len(calls) >= 10
