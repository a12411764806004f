"""SIGINT and SIGTERM: postponed during a change of a model, or taken as a request to stop."""

from gsprune.interrupts.postponed import PostponedInterrupts as PostponedInterrupts
from gsprune.interrupts.stop_request import StopRequest as StopRequest
