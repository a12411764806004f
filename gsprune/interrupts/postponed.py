"""Postpones interrupts until a change of a model is complete or rolled back."""

from __future__ import annotations

import signal
from types import FrameType, TracebackType

from gsprune.interrupts.handlers import Handler, SignalHandlers

__all__ = ["PostponedInterrupts"]


class PostponedInterrupts(SignalHandlers):
    """Postpones signals with a Python handler: the handlers run at the end of this context.

    An interrupt can occur between any two steps of the interpreter, even between the last line of a ``try`` and the
    first line of its ``finally``, where the change would not be rolled back. A second Ctrl-C interrupts at once, in
    case a forward hangs.
    """

    def __init__(self) -> None:
        super().__init__()
        self._received: dict[int, FrameType | None] = {}

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Restore the old handlers, and call those of the received signals."""
        super().__exit__(kind, error, trace)
        for number, frame in self._received.items():
            self._call_previous(number, frame)

    def replaces(self, handler: Handler) -> bool:
        """True for Python handlers. The system's handlers cannot be called later."""
        return callable(handler)

    def handle(self, number: int, frame: FrameType | None) -> None:
        """Store the signal for later. A second SIGINT is handled at once."""
        if number == signal.SIGINT and number in self._received:
            self._call_previous(number, frame)
        self._received[number] = frame

    def _call_previous(self, number: int, frame: FrameType | None) -> None:
        handler = self.previous[number]
        assert callable(handler)
        handler(number, frame)
