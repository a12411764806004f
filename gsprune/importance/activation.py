"""The criterion that reads what the layers put out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from gsprune.errors import ScoreError
from gsprune.importance.base import Criterion, FloatArray, ScoreSource, layer_of, unit_sums
from gsprune.tracing.graph import Group, Member
from gsprune.tracing.undisturbed import undisturbed

__all__ = ["Activation"]


class Activation(Criterion):
    """x_mu = Σ over the positions of unit u of mean |a|, with a the output of layer m over batch and space.

    The members are the layers whose weights open the group's channels, as far as they are torch's own linear, embedding
    and convolution layers or derived from them: of others it is not known which axis of their output is which. The
    root's layer is the first, and the default reduction takes the first alone. The model runs in eval mode without
    gradients; modes, buffers and random generators are as before when it is done.

    Source: Molchanov et al. 2017, Pruning convolutional neural networks for resource efficient inference, sec. 2.2
    ("activation"), https://arxiv.org/abs/1611.06440

    Args:
        batches: what to run the model on, each a tensor or a tuple of positional inputs; None takes the example that
            the network was traced with.
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

    def statistics(self, source: ScoreSource) -> dict[str, FloatArray]:
        """Mean magnitudes of the layers' outputs; see `Criterion.statistics`."""
        if source.model is None:
            raise ScoreError("importance 'activation' needs the model itself; call it through gsprune.prune_step")
        readable = {group.name: _readable_members(group, source, source.model) for group in source.groups}
        meters = {
            member.tensor: _Meter(source.tensors[member.tensor], member)
            for members in readable.values()
            for member in members
        }
        handles = [
            source.model.get_submodule(layer_of(name)).register_forward_hook(meter.hook)
            for name, meter in meters.items()
        ]
        try:
            self._run(source.model, source.run)
        finally:
            for handle in handles:
                handle.remove()
        return {group.name: _statistics_of(group, readable[group.name], meters) for group in source.groups}

    def _run(self, model: nn.Module, run: Callable[[nn.Module], Any] | None) -> None:
        with undisturbed(model):
            if self.batches is not None:
                for batch in self.batches:
                    self._call(model, batch if isinstance(batch, tuple) else (batch,))
            elif run is not None:
                run(model)
            else:
                raise ScoreError(
                    "importance 'activation' needs an input to run on: give example_inputs, or "
                    "Importance(Activation(batches=[...]))"
                )

    def _call(self, model: nn.Module, batch: tuple[Any, ...]) -> None:
        if self.forward is None:
            model(*batch)
        else:
            self.forward(model, *batch)


class _Meter:
    """Sums |output| of one layer per position of its channel axis."""

    def __init__(self, weight: Tensor, member: Member) -> None:
        # Channels are the last axis of a matrix product, and stand before the space of a convolution.
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

    def means(self) -> FloatArray | None:
        """(width,) float64; None where the layer gave no such output."""
        if self.total is None or self.elements == 0:
            return None
        result: FloatArray = (self.total / self.elements).cpu().numpy()
        return result


_READABLE = (nn.Linear, nn.Embedding, nn.modules.conv._ConvNd)


def _readable_members(group: Group, source: ScoreSource, model: nn.Module) -> list[Member]:
    modules = dict(model.named_modules())
    return [
        member
        for member in group.members
        if member.role == "out"
        and source.tensors[member.tensor].ndim >= 2
        and not source.structure.traced.is_copy(member.tensor)
        and isinstance(modules.get(layer_of(member.tensor)), _READABLE)
    ]


def _statistics_of(group: Group, members: Sequence[Member], meters: dict[str, _Meter]) -> FloatArray:
    rows = [
        unit_sums(means, member, group.num_units)
        for member in members
        if (means := meters[member.tensor].means()) is not None
    ]
    if not rows:
        raise ScoreError(
            f"importance 'activation' found no linear, embedding or convolution layer in group {group.name!r} whose "
            f"output it can read: take another importance, e.g. 'l1', or keep the group's width with "
            f"ignore=({group.name!r},)"
        )
    return np.stack(rows)
