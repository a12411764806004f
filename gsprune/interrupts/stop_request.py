"""A context in which signals request a stop between two iterations of a training."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable
from contextlib import suppress
from types import FrameType, TracebackType

from gsprune.interrupts.handlers import SignalHandlers

__all__ = ["StopRequest"]


class StopRequest(SignalHandlers):
    """In this context the first SIGINT or SIGTERM requests a stop, and a later SIGINT interrupts at once.

    Attributes:
        requested: True if the training should stop.
        ends_by_itself: set this to True before an error leaves the context and ends the process. SIGTERM is then
            ignored, so that the process can print the error. (A launcher sends SIGTERM to all ranks if one has ended.)
    """

    def __init__(self, on_request: Callable[[], None], grace: float = 0.0) -> None:
        """Prepare the context; `__enter__` installs the handlers.

        Args:
            on_request: called once, at the first signal, to inform the user.
            grace: seconds in which another SIGINT is ignored. Under a launcher every process gets the terminal's Ctrl-C
                twice.
        """
        super().__init__()
        self.requested = False
        self.ends_by_itself = False
        self._on_request = on_request
        self._grace = grace
        self._requested_at = 0.0

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Restore the old handlers, but ignore SIGTERM if the process ends by itself."""
        if self.ends_by_itself and signal.SIGTERM in self.previous:
            self.previous[signal.SIGTERM] = signal.SIG_IGN
        super().__exit__(kind, error, trace)

    def handle(self, number: int, frame: FrameType | None) -> None:
        """Note the first signal; raise at a later SIGINT."""
        del frame
        now = time.monotonic()
        if self.requested and number == signal.SIGINT and now - self._requested_at >= self._grace:
            raise KeyboardInterrupt
        if not self.requested:
            self.requested, self._requested_at = True, now
            # Python refuses output from a handler that interrupted output, for example into a full pipe.
            with suppress(RuntimeError):
                self._on_request()
