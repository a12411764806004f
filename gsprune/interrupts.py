"""Hold signals back while a model is neither what it was nor what it will be."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable
from types import FrameType, TracebackType
from typing import Any

__all__ = ["HeldInterrupts"]

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class HeldInterrupts:
    """While this context lasts, a signal that a Python function handles waits; it is handled at the end.

    An interrupt can land between any two steps of the interpreter, also between the last line of a ``try`` and the
    first of its ``finally``, where nothing would take back what has been done. A second Ctrl-C interrupts at once, for
    a forward that hangs. Signals reach the main thread alone; elsewhere this does nothing.
    """

    def __init__(self) -> None:
        self._previous: dict[int, Callable[[int, FrameType | None], Any]] = {}
        self._heard: dict[int, FrameType | None] = {}

    def __enter__(self) -> HeldInterrupts:
        """Take over the signals that have a handler in Python."""
        if threading.current_thread() is threading.main_thread():
            for number in _SIGNALS:
                handler = signal.getsignal(number)
                if callable(handler):
                    self._previous[number] = handler
                    signal.signal(number, self._hear)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Give the signals back, and have those that came handled."""
        for number, handler in self._previous.items():
            signal.signal(number, handler)
        for number, frame in self._heard.items():
            self._previous[number](number, frame)

    def _hear(self, number: int, frame: FrameType | None) -> None:
        if number == signal.SIGINT and number in self._heard:
            self._previous[number](number, frame)
        self._heard[number] = frame
