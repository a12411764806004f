"""Finds the channels of a network that must be removed together."""

from gsprune.tracing.call import Call
from gsprune.tracing.rules.registry import rule
from gsprune.tracing.shadow import Kind, Shadow
from gsprune.tracing.tape import Tape
from gsprune.tracing.tracer import trace

__all__ = ["Call", "Kind", "Shadow", "Tape", "rule", "trace"]
