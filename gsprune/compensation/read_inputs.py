"""The inputs of weights: the range of each channel, and the channels that depend on the network's inputs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import _disable_current_modes

from gsprune.arrays import BoolArray
from gsprune.compensation.constant_places import ConstantPlace
from gsprune.compensation.dependence import InputDependence
from gsprune.compensation.use_watcher import common_constants, watch_calls
from gsprune.compensation.uses import Use
from gsprune.rewrite.tensors import canonical_tensors
from gsprune.tracing.example import Example
from gsprune.tracing.graph import Graph

__all__ = ["ReadInputs", "find_read_inputs"]

# Values count as equal if they differ by at most this many rounding errors of the consumer's largest input.
_ROUNDINGS = 64


@dataclass
class ReadInputs:
    """The inputs of one consumer, over all its uses and all data.

    Attributes:
        use: one of its uses, for groups and kind of the operation.
        axis, length: the weight's input axis and its length.
        places: biases and running means that take a constant; empty if none can.
        is_conditional: True if the code may use other places on other inputs.
        pads: True if zero padding gives a constant other than zero a border.
        low, high: (channels,) float64, least and greatest value of each channel that is read.
        depends: (channels,) True where a channel may have other values on other data.
    """

    use: Use
    axis: int
    length: int
    places: tuple[ConstantPlace, ...]
    pads: bool
    low: Tensor
    high: Tensor
    depends: Tensor
    is_conditional: bool = False

    def is_constant(self, tolerance: float) -> Tensor:
        """(channels,) True where a channel is constant, up to `tolerance` of the largest input."""
        return (self.high - self.low <= self._margin(tolerance)) & ~self.depends

    def removable(self, tolerance: float) -> Tensor:
        """(channels,) True where a channel is a constant that the consumer's biases can take; 0 needs no bias."""
        constant = self.is_constant(tolerance)
        takes_only_zero = self.pads or not self.places or self.is_conditional
        return constant & (self._largest <= self._margin(tolerance)) if takes_only_zero else constant

    @property
    def middle(self) -> Tensor:
        """(channels,) float64, the middle of each channel's values."""
        return (self.low + self.high) / 2

    def per_position(self, channels: Tensor) -> BoolArray:
        """(length,) bool: True at positions of the weight's input axis that read only channels marked in `channels`.

        A position of a grouped convolution reads one channel of every group.
        """
        result: BoolArray = channels.reshape(-1, self.length).all(0).cpu().numpy()
        return result

    @property
    def _largest(self) -> Tensor:
        return torch.maximum(self.high.abs(), self.low.abs())

    def _margin(self, tolerance: float) -> Tensor:
        rounding = _ROUNDINGS * torch.finfo(self.use.inputs.dtype).eps
        return max(tolerance, rounding) * self._largest.max()


def find_read_inputs(
    model: nn.Module, graph: Graph, calls: Sequence[Example], *, for_any_input: bool
) -> tuple[dict[str, ReadInputs], dict[str, str]]:
    """Run the network on some data and record the inputs of its weights.

    With `for_any_input`, a channel that depends on the network's inputs is not constant, even if its values are equal.

    Returns:
        weight -> its inputs, for weights that read channels of a group and that are reached; and weight -> reason, for
        weights whose channels may be read in another way, too.
    """
    members = {(member.tensor, member.axis, member.role) for group in graph.groups for member in group.members}
    axes = {tensor: axis for role in ("out", "in") for tensor, axis, each in sorted(members) if each == role}
    consumers = {tensor for tensor, _, role in members if role == "in"}
    axes_per_role = Counter((tensor, role) for tensor, _, role in members)
    unclear = {tensor: "channels go along several of its axes" for (tensor, _), n in axes_per_role.items() if n > 1}
    dependence = InputDependence(canonical_tensors(model).values()) if for_any_input else None
    found: dict[str, ReadInputs] = {}

    def record(batch: int, use: Use) -> None:
        del batch
        if use.weight not in consumers:
            if not use.is_depthwise:
                unclear[use.weight] = "it reads the channels that it makes"
            return
        with _disable_current_modes():
            inputs = _rows(use.inputs, use)
            depends = torch.zeros_like(inputs[0], dtype=torch.bool)
            if dependence is not None:
                depends = _rows(dependence.mask(use.inputs), use).any(0)
            low, high = (extreme.double() for extreme in torch.aminmax(inputs, dim=0))
            axis = axes[use.weight]
            length, kind = graph.shapes[use.weight][axis], replace(use, inputs=inputs[:0])
            new = ReadInputs(kind, axis, length, (), use.padding > 0, low, high, depends)
            earlier = found.get(use.weight)
            found[use.weight] = new if earlier is None else _merged(earlier, new)

    def is_conditional() -> bool:
        return dependence is not None and dependence.code_depends

    with dependence or nullcontext():
        watchers = watch_calls(model, axes, calls, record, is_conditional)
    for watcher in watchers:
        unclear |= {name: f"{op} reads it" for name, op in watcher.unsupported.items() if name in consumers}
    for name, inputs in found.items():
        inputs.places = common_constants(watchers, name)
        inputs.is_conditional = any(name in watcher.places.conditional for watcher in watchers)
    return {name: inputs for name, inputs in found.items() if name not in unclear}, unclear


def _rows(tensor: Tensor, use: Use) -> Tensor:
    """(rows, channels) of the inputs of a use, or of their mask."""
    return tensor.movedim(use.channel_axis, -1).flatten(0, -2)


def _merged(one: ReadInputs, other: ReadInputs) -> ReadInputs:
    """The inputs of two uses of one weight."""
    return replace(
        one,
        pads=one.pads or other.pads,
        low=torch.minimum(one.low, other.low),
        high=torch.maximum(one.high, other.high),
        depends=one.depends | other.depends,
    )
