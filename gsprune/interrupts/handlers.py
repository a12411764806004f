"""A context with its own signal handlers."""

from __future__ import annotations

import signal
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable
from types import FrameType, TracebackType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from typing_extensions import Self  # in `typing` from Python 3.11 on

__all__ = ["Handler", "SignalHandlers"]

Handler = Callable[[int, FrameType | None], Any] | int | None


class SignalHandlers(ABC):
    """A context that handles SIGINT and SIGTERM with its method `handle`, and restores the old handlers at its end.

    Python runs handlers only in the main thread. In another thread this context changes nothing.

    Attributes:
        previous: the old handler of each signal that `handle` has replaced.
    """

    def __init__(self) -> None:
        self.previous: dict[int, Handler] = {}

    def __enter__(self) -> Self:
        """Install the handlers."""
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                handler = signal.getsignal(number)
                if self.replaces(handler):
                    self.previous[number] = handler
                    signal.signal(number, self.handle)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Restore the old handlers."""
        for number, handler in self.previous.items():
            signal.signal(number, handler)

    def replaces(self, handler: Handler) -> bool:
        """True if a signal with this handler is handled here. Handlers of C code are kept: they cannot be restored."""
        return handler is not None

    @abstractmethod
    def handle(self, number: int, frame: FrameType | None) -> None:
        """Handle a signal."""
