"""Tracing: which channels of a network belong together."""

from gsprune.tracing.tracer import trace

__all__ = ["trace"]
