"""The masked dense network as the small one computes: an operation that reads all channels at once reads the kept ones.

A LayerNorm counts the zeros of the masked network, and the small network has none. So the masked network runs such
operations on the kept channels alone, and has zeros for the others in their outputs. Then both networks have the same
output.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from gsprune.arrays import IntArray
from gsprune.tracing.call import outputs_of
from gsprune.tracing.operation_mode import OperationMode
from gsprune.tracing.rules.registry import Operation
from gsprune.tracing.structure import Structure
from gsprune.tracing.trail import Axes, TrailOperation

__all__ = ["IncomparableError", "KeptPopulations", "gathered"]

Cuts = list[tuple[int, IntArray, int]]
"""(axis, positions that stay, length before) of each axis of a tensor that becomes shorter."""


class IncomparableError(Exception):
    """The masked network cannot compute what the small one does."""


class KeptPopulations(OperationMode):
    """Runs operations that read all channels at once on the channels that a step keeps.

    Args:
        before: the groups of the dense network, which runs in this context on the example of the trace.
        after: the groups of the small network.

    Attributes:
        trail: the operations of the trace.
    """

    def __init__(self, before: Structure, after: Structure) -> None:
        super().__init__()
        self._before, self._after = before, after
        self.trail = after.traced.trail
        self._operations = 0

    def run(self, func: Any, operation: Operation, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Run an operation, on fewer channels if it reads them all at once.

        Raises:
            IncomparableError: the forward takes another path than in the trace, or the channels are not known.
        """
        traced = self.trail[self._operations] if self._operations < len(self.trail) else None
        self._operations += 1
        if traced is None or traced.op != operation.name:
            raise IncomparableError("the forward takes another path than in the trace")
        if not traced.population:
            return func(*args, **kwargs)
        cuts = [self.cuts(axes) for axes in traced.population]
        if not any(cuts):
            return func(*args, **kwargs)
        if operation.mutable:
            raise IncomparableError(f"{operation.name} writes into the channels that it reads")
        args, kwargs = _with_kept(operation.name, args, kwargs, cuts)
        return self._with_removed(func(*args, **kwargs), traced)

    def cuts(self, axes: Axes | None) -> Cuts:
        """The axes of a tensor with these units that become shorter.

        Raises:
            IncomparableError: the units are not known.
        """
        if axes is None:
            raise IncomparableError("channels of unknown positions are read all at once")
        cuts = [(axis, *self._after.kept_positions(self._before, units)) for axis, units in axes]
        return [cut for cut in cuts if len(cut[1]) < cut[2]]

    def _with_removed(self, result: Any, traced: TrailOperation) -> Any:
        """The operation's outputs with zeros for the removed channels."""
        outputs = list(outputs_of(result))
        for index, axes in enumerate(traced.outputs[: len(outputs)]):
            for axis, kept, length in self.cuts(axes):
                outputs[index] = _spread(outputs[index], axis, kept, length)
        if isinstance(result, Tensor):
            return outputs[0]
        return type(result)(outputs) if len(outputs) == len(result) else result


def _with_kept(
    op: str, args: tuple[Any, ...], kwargs: dict[str, Any], cuts: Sequence[Cuts]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """The arguments with the kept channels of each tensor, whose cuts come in the order of `Call.tensors`."""
    remaining = iter(cuts)

    def kept(value: Any) -> Any:
        if isinstance(value, Tensor):
            return gathered(value, next(remaining))
        return [kept(item) for item in value] if isinstance(value, list | tuple) else value

    args = tuple(kept(value) for value in args)
    kwargs = {name: kept(value) for name, value in kwargs.items()}
    x = args[0]
    if op in ("aten.native_layer_norm", "aten._fused_rms_norm"):
        args = (x, list(x.shape[x.ndim - len(args[1]) :]), *args[2:])
    elif op == "aten.native_group_norm":
        args = (*args[:4], x.shape[1], *args[5:])
    return args, kwargs


def gathered(tensor: Tensor, cuts: Cuts) -> Tensor:
    """The kept positions of a tensor.

    Raises:
        IncomparableError: it has other sizes than in the trace.
    """
    for axis, kept, length in cuts:
        if axis >= tensor.ndim or tensor.shape[axis] != length:
            raise IncomparableError("the forward makes other sizes than in the trace")
        tensor = tensor.index_select(axis, torch.from_numpy(kept).to(tensor.device))
    return tensor


def _spread(tensor: Tensor, axis: int, kept: IntArray, length: int) -> Tensor:
    """The tensor with zeros between the kept positions of an axis."""
    if axis >= tensor.ndim or tensor.shape[axis] != len(kept):
        raise IncomparableError("an operation makes other sizes than in the trace")
    shape = list(tensor.shape)
    shape[axis] = length
    return tensor.new_zeros(shape).index_copy_(axis, torch.from_numpy(kept).to(tensor.device), tensor)
