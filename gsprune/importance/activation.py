"""A criterion that reads the outputs of layers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from gsprune.arrays import Float64Array
from gsprune.errors import ScoreError
from gsprune.importance.criterion import Criterion, ScoreSource, register_criterion
from gsprune.importance.weights import unit_sums
from gsprune.tracing.graph import Group, Member, layer_of

__all__ = ["Activation"]

_READABLE = (nn.Linear, nn.Embedding, nn.modules.conv._ConvNd)


@register_criterion("activation")
class Activation(Criterion):
    """x_mu = Σ over the positions of unit u of mean |a|, with a the output of layer m over batch and space.

    The members are the layers that write the group's channels. Only torch's linear, embedding and convolution layers
    and classes derived from them are read, because the channel axis of other layers' outputs is unknown. The root's
    layer is the first, and the default reduction uses only the first. The model runs in eval mode without gradients;
    modes, buffers and random generators are restored.

    Source: Molchanov et al. 2017, Pruning convolutional neural networks for resource efficient inference, sec. 2.2
    ("activation"), https://arxiv.org/abs/1611.06440

    Args:
        batches: the inputs to run the model on, each a tensor or a tuple of positional inputs; None uses the
            calibration data of the step, by default the traced example.
        forward: ``forward(model, *batch)`` to call instead of ``model(*batch)``.
    """

    default_reduction: ClassVar[str] = "first"
    reads_data: ClassVar[bool] = True

    def __init__(
        self, batches: Sequence[Tensor | tuple[Any, ...]] | None = None, forward: Callable[..., Any] | None = None
    ) -> None:
        if batches is not None and not isinstance(batches, list | tuple):
            raise TypeError(f"`batches` must be a list or tuple of batches, got {type(batches).__name__}")
        if forward is not None and not callable(forward):
            raise TypeError(f"`forward` must be callable, got {type(forward).__name__}")
        if batches is not None and len(batches) == 0:
            raise ValueError("`batches` must hold at least one batch, got none; None takes the traced example")
        self.batches = batches
        self.forward = forward

    def statistics(self, source: ScoreSource) -> dict[str, Float64Array]:
        """Mean magnitudes of the layers' outputs; see `Criterion.statistics`."""
        modules = {} if source.model is None else dict(source.model.named_modules())
        members = {group.name: _readable_members(group, source, modules) for group in source.groups}
        means = {
            member.tensor: _MeanMagnitude(source.tensors[member.tensor], member)
            for readable in members.values()
            for member in readable
        }
        handles = [modules[layer_of(name)].register_forward_hook(mean.hook) for name, mean in means.items()]
        try:
            source.run_model("activation", None if self.batches is None else self._run_batches)
        finally:
            for handle in handles:
                handle.remove()
        return {group.name: _statistics_of(group, members[group.name], means) for group in source.groups}

    def _run_batches(self, model: nn.Module) -> None:
        for batch in self.batches or ():
            inputs = batch if isinstance(batch, tuple) else (batch,)
            model(*inputs) if self.forward is None else self.forward(model, *inputs)


class _MeanMagnitude:
    """Mean |output| of one layer per position of its channel axis."""

    def __init__(self, weight: Tensor, member: Member) -> None:
        # The channel axis is the last one of a matrix product, and the one before the spatial axes of a convolution.
        self.axis = -1 if weight.ndim == 2 else 1 - weight.ndim
        self.width = weight.shape[member.axis]
        self.total: Tensor | None = None
        self.elements = 0

    def hook(self, module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        del module, args
        if not isinstance(output, Tensor) or output.ndim < -self.axis or output.shape[self.axis] != self.width:
            return
        values = output.detach().movedim(self.axis, 0).flatten(1).to(torch.float64).abs()
        total = values.sum(dim=1)
        self.total = total if self.total is None else self.total + total
        self.elements += values.shape[1]

    def value(self) -> Float64Array | None:
        """(width,) float64; None if the layer was not called, or not with an output of this width."""
        if self.total is None or self.elements == 0:
            return None
        result: Float64Array = (self.total / self.elements).cpu().numpy()
        return result


def _readable_members(group: Group, source: ScoreSource, modules: dict[str, nn.Module]) -> list[Member]:
    return [
        member
        for member in group.members
        if member.role == "out"
        and source.tensors[member.tensor].ndim >= 2
        and not source.structure.traced.is_copy(member.tensor)
        and isinstance(modules.get(layer_of(member.tensor)), _READABLE)
    ]


def _statistics_of(group: Group, members: Sequence[Member], means: dict[str, _MeanMagnitude]) -> Float64Array:
    values = [(member, means[member.tensor].value()) for member in members]
    rows = [unit_sums(value, member, group.num_units) for member, value in values if value is not None]
    if not rows:
        raise ScoreError(
            f"importance 'activation' found no linear, embedding or convolution layer in group {group.name!r} whose "
            f"output it can read: use another importance, e.g. 'l1', or keep the group's width with "
            f"ignore=({group.name!r},)"
        )
    return np.stack(rows)
