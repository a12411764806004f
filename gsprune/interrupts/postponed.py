"""Interrupts that wait until a change of a model is complete or taken back."""

from __future__ import annotations

import signal
from types import FrameType, TracebackType

from gsprune.interrupts.handlers import Handler, SignalHandlers

__all__ = ["PostponedInterrupts"]


class PostponedInterrupts(SignalHandlers):
    """Signals that have a handler in Python wait during this context; the handlers run at its end.

    An interrupt can land between any two steps of the interpreter, also between the last line of a ``try`` and the
    first of its ``finally``, where nothing would undo the change. A second Ctrl-C interrupts at once, for a forward
    that hangs.
    """

    def __init__(self) -> None:
        super().__init__()
        self._received: dict[int, FrameType | None] = {}

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Put the old handlers back, and call those of the signals that came."""
        super().__exit__(kind, error, trace)
        for number, frame in self._received.items():
            self._call_previous(number, frame)

    def replaces(self, handler: Handler) -> bool:
        """Only handlers in Python: the system's own ones cannot be called later."""
        return callable(handler)

    def handle(self, number: int, frame: FrameType | None) -> None:
        """Keep the signal for later; a second SIGINT is passed on at once."""
        if number == signal.SIGINT and number in self._received:
            self._call_previous(number, frame)
        self._received[number] = frame

    def _call_previous(self, number: int, frame: FrameType | None) -> None:
        handler = self.previous[number]
        assert callable(handler)
        handler(number, frame)
