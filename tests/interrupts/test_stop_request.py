"""The first signal asks, the second insists."""

from __future__ import annotations

import signal

import pytest

from gsprune.interrupts import StopRequest


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_first_signal_asks_to_stop_and_tells_the_user(number: int) -> None:
    told: list[bool] = []
    with StopRequest(lambda: told.append(True)) as stop:
        assert not stop.requested
        signal.raise_signal(number)
        assert stop.requested
        assert told == [True]


def test_a_second_ctrl_c_interrupts_and_a_second_sigterm_does_not() -> None:
    told: list[bool] = []
    with StopRequest(lambda: told.append(True)):
        signal.raise_signal(signal.SIGTERM)
        signal.raise_signal(signal.SIGTERM)
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    assert told == [True]


def test_a_signal_in_the_midst_of_output_stops_all_the_same() -> None:
    def refuse() -> None:
        raise RuntimeError("reentrant call inside <_io.BufferedWriter name='<stdout>'>")

    with StopRequest(refuse) as stop:
        signal.raise_signal(signal.SIGINT)
        assert stop.requested


def test_the_same_ctrl_c_may_come_twice_where_a_launcher_passes_it_on() -> None:
    with StopRequest(lambda: None, grace=60.0) as stop:
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)
        assert stop.requested


def test_the_signals_are_given_back() -> None:
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    with StopRequest(lambda: None):
        pass
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before


def test_a_process_that_ends_by_itself_is_not_ended_before_it_has_told_why() -> None:
    def run() -> None:
        with StopRequest(lambda: None) as stop:
            stop.ends_by_itself = True
            raise ValueError("why")

    before = signal.getsignal(signal.SIGTERM)
    try:
        with pytest.raises(ValueError, match="why"):
            run()
        signal.raise_signal(signal.SIGTERM)  # would end this process
        assert signal.getsignal(signal.SIGTERM) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGTERM, before)
