"""Handlers of SIGINT and SIGTERM: postpone a signal while a model changes, or request a stop."""

from gsprune.interrupts.postponed import PostponedInterrupts as PostponedInterrupts
from gsprune.interrupts.stop_request import StopRequest as StopRequest
