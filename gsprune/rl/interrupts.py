"""Stopping a training between two iterations."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable
from types import FrameType, TracebackType

__all__ = ["StopRequest"]

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class StopRequest:
    """While this context lasts, the first SIGINT or SIGTERM asks to stop; a second SIGINT interrupts at once.

    Attributes:
        requested: whether to stop at the next opportunity.
    """

    def __init__(self, on_request: Callable[[], None]) -> None:
        """Prepare; signals are taken from `__enter__` on.

        Args:
            on_request: called once, at the first signal, to tell the user what will happen.
        """
        self.requested = False
        self._on_request = on_request
        self._previous: dict[int, signal.Handlers | Callable[[int, FrameType | None], object] | int | None] = {}

    def __enter__(self) -> StopRequest:
        """Take the signals over; only the main thread can."""
        if threading.current_thread() is threading.main_thread():
            for number in _SIGNALS:
                self._previous[number] = signal.signal(number, self._handle)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Give the signals back."""
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        del frame
        if self.requested and number == signal.SIGINT:
            raise KeyboardInterrupt
        if not self.requested:
            self.requested = True
            self._on_request()
