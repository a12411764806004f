"""Stopping a training between two iterations."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from types import FrameType, TracebackType

__all__ = ["StopRequest"]

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class StopRequest:
    """While this context lasts, the first SIGINT or SIGTERM asks to stop; a later SIGINT interrupts at once.

    With a launcher above, the Ctrl-C that the terminal sends to all comes twice: `grace` tells it from a second one.

    Attributes:
        requested: whether to stop at the next opportunity.
        ends_by_itself: set it before an error leaves the context that ends the process: it is then not ended by SIGTERM
            before it has told why. A launcher sends that to all that are left as soon as one process is gone.
    """

    def __init__(self, on_request: Callable[[], None], grace: float = 0.0) -> None:
        """Prepare; signals are taken from `__enter__` on.

        Args:
            on_request: called once, at the first signal, to tell the user what will happen.
            grace: seconds in which a further SIGINT counts as the same.
        """
        self.requested = False
        self.ends_by_itself = False
        self._on_request = on_request
        self._grace = grace
        self._requested_at = 0.0
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
            is_ignored = self.ends_by_itself and number == signal.SIGTERM
            signal.signal(number, signal.SIG_IGN if is_ignored else handler)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        del frame
        now = time.monotonic()
        if self.requested and number == signal.SIGINT and now - self._requested_at >= self._grace:
            raise KeyboardInterrupt
        if not self.requested:
            self.requested, self._requested_at = True, now
            # Python refuses output from a handler that came in the midst of output, into a full pipe, say.
            with suppress(RuntimeError):
                self._on_request()
