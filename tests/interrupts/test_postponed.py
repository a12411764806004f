"""Signals wait while a model is changed."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator

import pytest

from gsprune.interrupts import PostponedInterrupts


@pytest.fixture(autouse=True)
def ctrl_c() -> Iterator[None]:
    """Python's own handler: a suite that a shell starts in the background ignores Ctrl-C."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def test_an_interrupt_is_raised_at_the_end() -> None:
    steps: list[str] = []

    def run() -> None:
        with PostponedInterrupts():
            signal.raise_signal(signal.SIGINT)
            steps.append("after the signal")

    with pytest.raises(KeyboardInterrupt):
        run()
    assert steps == ["after the signal"]


def test_a_second_ctrl_c_interrupts_at_once() -> None:
    steps: list[str] = []

    def run() -> None:
        with PostponedInterrupts():
            signal.raise_signal(signal.SIGINT)
            signal.raise_signal(signal.SIGINT)
            steps.append("after the second signal")

    with pytest.raises(KeyboardInterrupt):
        run()
    assert steps == []
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_another_thread_changes_no_handler() -> None:
    def run() -> None:
        with PostponedInterrupts() as context:
            assert context.previous == {}

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
