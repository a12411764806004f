"""What all rule modules share: the call at hand, operands aligned to its output, and the shape of a rule."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch

from gsprune.tracing.constants import uneven_axes
from gsprune.tracing.shadow import EMPTY, FLEXIBLE, Kind, Labels, Shadow, varying
from gsprune.tracing.tape import Operand, Tape

__all__ = [
    "Call",
    "Result",
    "Rule",
    "aligned",
    "axis_of",
    "channels_out",
    "common_source",
    "elementwise",
    "origin",
    "protect_all",
]


class Call(NamedTuple):
    """One operation that has run: its name ("aten.add"), arguments and output."""

    op: str
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    out: Any

    def arg(self, index: int, name: str, default: Any = None) -> Any:
        """An argument by position or name."""
        if index < len(self.args):
            return self.args[index]
        return self.kwargs.get(name, default)

    def tensors(self) -> list[torch.Tensor]:
        """All tensors among the arguments, also in lists, in order."""
        found: list[torch.Tensor] = []
        for value in (*self.args, *self.kwargs.values()):
            if isinstance(value, torch.Tensor):
                found.append(value)
            elif isinstance(value, list | tuple):
                found.extend(item for item in value if isinstance(item, torch.Tensor))
        return found


Result = Shadow | Sequence[Shadow]
Rule = Callable[[Tape, Call], Result]
"""A rule gives the shadow of the output, or one for each of several outputs (missing ones are fixed)."""


def axis_of(axis: int, ndim: int) -> int:
    """A possibly negative axis as one in [0, ndim)."""
    return axis + ndim if axis < 0 else axis


def aligned(layer: Labels, ndim: int) -> Labels:
    """A layer broadcast to `ndim` axes, counted from the last."""
    return layer if layer.ndim == ndim else layer.reshape((1,) * (ndim - layer.ndim) + layer.shape)


def operand(tape: Tape, tensor: torch.Tensor, ndim: int) -> Operand:
    """A tensor as an operand of an element-wise operation on `ndim` axes."""
    shadow = tape.of(tensor)
    sizes = (1,) * (ndim - tensor.ndim) + tuple(tensor.shape)
    uneven = tuple(axis + ndim - tensor.ndim for axis in uneven_axes(tensor, shadow))
    return Operand(tuple(aligned(layer, ndim) for layer in shadow.layers), sizes, shadow.kind, uneven)


def origin(shadows: Sequence[Shadow]) -> Kind:
    """The kind of what is computed from all of these."""
    return max((shadow.kind for shadow in shadows), default=Kind.CONSTANT)


def common_source(shadows: Sequence[Shadow]) -> str | None:
    """The weight that all of these are products of, or None."""
    first = shadows[0].source if shadows and shadows[0].kind is Kind.ACTIVATION else None
    return first if all(shadow.source == first for shadow in shadows) else None


def elementwise(tape: Tape, tensors: Sequence[torch.Tensor], shape: Sequence[int]) -> Shadow:
    """The shadow of an element-wise function of `tensors`, of the given output shape."""
    ndim = len(shape)
    shadows = [tape.of(tensor) for tensor in tensors]
    kind = origin(shadows)
    if len(tensors) == 1 and tensors[0].ndim == ndim:
        shadow = shadows[0]
        return Shadow(shadow.layers, kind) if shadow.source and kind is Kind.ACTIVATION else shadow
    operands = [operand(tape, tensor, ndim) for tensor in tensors]
    layers = tape.merge(operands)
    if kind is not Kind.ACTIVATION:
        size = torch.Size(shape)
        source = next((s.source for s, t in zip(shadows, tensors, strict=True) if s.source and t.shape == size), None)
        return Shadow(layers, kind, source)
    if layers:
        _open_parameters(tape, operands, layers)
    return Shadow([*layers, *_flexible(operands, layers, shape)], kind)


def _flexible(operands: Sequence[Operand], layers: Sequence[Labels], shape: Sequence[int]) -> list[Labels]:
    """Axes that constants alone span: they follow what they meet (a state of zeros times a mask of ends)."""
    rest = [item for item in operands if item.kind is not Kind.CONSTANT]
    return [
        channels_out(np.full(size, FLEXIBLE, np.int32), axis, len(shape))
        for axis, size in enumerate(shape)
        if size > 1
        and all(item.sizes[axis] == 1 for item in rest)
        and all(layer.shape[axis] == 1 for layer in layers)
        and all(axis not in item.uneven for item in operands)
    ]


def _open_parameters(tape: Tape, operands: Sequence[Operand], layers: Sequence[Labels]) -> None:
    """A parameter that is broadcast against an activation makes channels along its last axis (Fourier features)."""
    for item in operands:
        if item.kind is Kind.PARAMETER:
            for layer in item.layers:
                if any(layer is other for other in layers) and varying(layer)[-1] == len(item.sizes) - 1:
                    tape.open(layer)


def channels_out(labels: Labels, axis: int, ndim: int) -> Labels:
    """(size,) labels as a layer that varies over `axis`."""
    return labels.reshape([-1 if other == axis else 1 for other in range(ndim)])


def protect_all(tape: Tape, call: Call) -> Shadow:
    """Nothing is known of the operation: whatever enters it keeps its width, and what leaves it is fixed."""
    for tensor in call.tensors():
        shadow = tape.of(tensor)
        tape.protect_shadow(shadow, f"{call.op} has no rule")
        if shadow.kind is Kind.PARAMETER and tensor.ndim > 1:  # no layer will open a weight's rows behind it
            for layer in shadow.layers:
                if varying(layer) == (0,):
                    tape.open(layer)
    return EMPTY
