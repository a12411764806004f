"""The dispatch mode that records on a tape what every operation does to channels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

import gsprune.tracing.rules  # noqa: F401  # registers the rules
from gsprune.tracing.call import Call
from gsprune.tracing.constants import uneven_axes
from gsprune.tracing.marks import is_noise, set_noise
from gsprune.tracing.operation_mode import OperationMode
from gsprune.tracing.originals import written_arguments
from gsprune.tracing.own_rules import result_of_own_rule
from gsprune.tracing.rules.operands import highest_kind, protect_all
from gsprune.tracing.rules.registry import POINTWISE, RULES, Operation
from gsprune.tracing.shadow import EMPTY, FREE, Labels, Shadow
from gsprune.tracing.tape import Tape
from gsprune.tracing.trail import Numbers, TracedOperation
from gsprune.tracing.values import numbers_of, reading_of, use_positions
from gsprune.tracing.writes import note_write

__all__ = ["Tracer"]

# Operations whose outputs have axes of any size, even if the input has no channels.
_MAKERS = frozenset(f"aten.{name}" for name in ("expand", "repeat", "new_zeros", "new_ones", "new_full", "new_empty"))
# Operations that do not read the old values of the tensor into which they write.
_OVERWRITES = frozenset({"aten.copy", "aten.fill", "aten.zero"})


class Tracer(OperationMode):
    """Runs every operation unchanged and records on the tape what it does to channels."""

    def __init__(self, tape: Tape) -> None:
        super().__init__()
        self.tape = tape

    def run(
        self, func: torch._ops.OpOverload, operation: Operation, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        """Run an operation and record what it does to the channels of its inputs."""
        tape, name = self.tape, operation.name
        inputs = Call(name, args, kwargs).tensors()
        has_channels = name in _MAKERS or any([tape.has_shadow(tensor) for tensor in inputs])
        written = args[0] if operation.mutable and args and isinstance(args[0], Tensor) else None
        is_random = operation.random or any([is_noise(tensor) for tensor in inputs])
        if written is not None and (name in _OVERWRITES or not uneven_axes(written, tape.of(written))):
            set_noise(written, True)  # during the rule, so that it does not judge by the new values
        if operation.mutable and tape.originals is not None:
            tape.originals.before_write(written_arguments(func, args, kwargs))
        first = args[0] if args and isinstance(args[0], Tensor) and args[0].layout is torch.strided else None
        shape, stride = (None, ()) if first is None else (tuple(first.shape), first.stride())
        call = Call(name, args, kwargs, func(*args, **kwargs), shape, stride)
        tape.op, tape.scale = name, None
        layers: list[Labels] = []
        made: list[Shadow] = []
        numbers: Numbers = ()
        population: list[Shadow] | None = []
        num_populations = len(tape.populations)
        shadows = [tape.of(tensor) for tensor in inputs]
        if not inputs:
            self._mark(call, FREE)
        elif has_channels:
            layers += [layer for shadow in shadows for layer in shadow.layers]
            self._apply(operation, call, written)
            use_positions(tape, call, shadows)
            if len(tape.populations) > num_populations:
                population = shadows
            made += [tape.of(tensor) for tensor in call.outputs()]
            layers += [layer for shadow in shadows if shadow.sum for layer in shadow.sum.layers]
        elif name == "aten.lift_fresh" and call.out.numel() == 1:
            tape.mark(call.out, FREE)  # torch.tensor(number)
        if inputs and not is_random:
            num_populations = len(tape.populations)
            numbers = numbers_of(tape, call, shadows, is_pointwise=operation.rule is RULES[POINTWISE])
            if len(tape.populations) > num_populations:  # a sum becomes a mean, whose channels no input has
                population = None
        if written is not None and not is_random:
            set_noise(written, False)
        for tensor in call.outputs() if is_random else ():
            set_noise(tensor, True)
        reading = reading_of(call.out) if operation.reads_values else None
        tape.trail.append(TracedOperation(name, layers, made, population, tape.scale, numbers, reading))
        return call.out

    def _apply(self, operation: Operation, call: Call, written: Tensor | None) -> None:
        """Apply the operation's rule and attach shadows to the outputs."""
        tape, rule = self.tape, operation.rule
        if rule is None:
            shadows = [tape.of(tensor) for tensor in call.tensors()]
            has_layers = any(shadow.layers for shadow in shadows)
            result: Shadow | Sequence[Shadow] = (
                protect_all(tape, call) if has_layers else Shadow(kind=highest_kind(shadows))
            )
        elif getattr(rule, "__module__", "").startswith("gsprune."):
            result = rule(tape, call)
        else:
            result = result_of_own_rule(rule, tape, call)
        if written is not None and isinstance(result, Shadow):
            note_write(tape, written, result, call.op)
        self._mark(call, result)

    def _mark(self, call: Call, result: Shadow | Sequence[Shadow]) -> None:
        """Attach a shadow to every output."""
        several = call.out if isinstance(call.out, tuple | list) else [call.out]
        for index, tensor in enumerate(several):
            if isinstance(tensor, Tensor):
                own = result if isinstance(result, Shadow) else result[index] if index < len(result) else EMPTY
                self.tape.mark(tensor, own)
