"""ReDo: re-initialises dormant units. The network does not get smaller."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, final

import numpy as np
import torch
from torch import Tensor, nn

from gsprune.arrays import IntArray
from gsprune.baselines.masks import Layer
from gsprune.baselines.method import SparsityMethod, SparsityReport
from gsprune.checks import check_number, check_whole
from gsprune.tracing.graph import Graph, Group, Member, layer_of

__all__ = ["ReDo"]

Role = Literal["in", "out"]

_ORDER: tuple[Role, Role] = ("out", "in")


@final
class ReDo(SparsityMethod):
    """Recycles dormant units.

        s_u = E|a_u| / mean_v E|a_v|;   dormant: s_u <= threshold

    a_u is the activation of a unit in the inputs of the layers that read it (after the non-linearity), averaged over a
    batch, over space and over these layers; v runs over all units of the same group. A dormant unit's incoming weights
    and bias are initialised again. Its outgoing weights become zero, so the network's output changes only by the
    unit's small contribution. The optimizer's moments of all these weights become zero, too.

    The published method is defined for plain layers. Here a unit is a unit of a group, so a channel of a residual
    stream, which several layers write and read, is recycled as a whole. If one layer writes and one layer reads, both
    definitions agree.

    Source: Sokar et al. 2023, https://arxiv.org/abs/2302.12902
    """

    def __init__(
        self,
        model: nn.Module,
        graph: Graph,
        optimizers: Sequence[torch.optim.Optimizer] = (),
        *,
        threshold: float = 0.025,
        interval: int = 1,
        seed: int = 0,
        average: Callable[[dict[str, Tensor], float], dict[str, Tensor]] | None = None,
    ) -> None:
        """Look up the layers of every group.

        Args:
            model: a network of convolutions and linear layers.
            graph: its groups, from `gsprune.trace`.
            optimizers: the optimizers of the model's parameters.
            threshold: fraction of the group's mean activation up to which a unit is dormant, >= 0.
            interval: number of `step` calls between two checks for dormant units, >= 1.
            seed: seed of the new weights.
            average: averages named activations over several processes, weighted by their numbers of frames; None for a
                single process.

        Raises:
            ValueError: an option is out of range, or a group has members other than convolutions and linear layers.
        """
        check_number("threshold", threshold, at_least=0)
        check_whole("interval", interval, at_least=1)
        self._model = model
        self._groups = graph.groups
        self._optimizers = tuple(optimizers)
        self._threshold = threshold
        self._interval = interval
        self._average = average
        self._calls = 0
        self._generator = torch.Generator().manual_seed(seed)
        self._layers = {
            member.tensor: _layer_of(model, member.tensor) for group in graph.groups for member in group.members
        }

    def is_due(self, progress: float) -> bool:
        """True if the next `step` checks for dormant units."""
        del progress
        return (self._calls + 1) % self._interval == 0

    def step(self, progress: float, frames: Tensor) -> SparsityReport:
        """Every `interval` calls, recycle the units that are dormant on this batch."""
        del progress
        self._calls += 1
        if self._calls % self._interval:
            return SparsityReport(changed=False, sparsity=0.0)
        dormant = self.dormant(frames)
        # First all incoming weights, then all outgoing ones, so that a weight between two dormant units becomes zero.
        for role in _ORDER:
            for group in self._groups:
                if len(dormant[group.name]):
                    self._recycle(group, dormant[group.name], role)
        count = sum(len(units) for units in dormant.values())
        return SparsityReport(changed=count > 0, sparsity=0.0, units=count)

    @torch.no_grad()
    def dormant(self, frames: Tensor) -> dict[str, IntArray]:
        """Dormant units by group: sorted int64 unit indices."""
        activations = self._input_means(frames)
        found = {}
        for group in self._groups:
            readers = [member for member in group.members if member.role == "in"]
            means = np.mean(
                [_per_unit(activations[member.tensor], member, group.num_units) for member in readers], axis=0
            )
            found[group.name] = np.flatnonzero(means <= self._threshold * means.mean())
        return found

    def state_dict(self) -> dict[str, Any]:
        """The number of calls and the state of the generator of new weights."""
        return {"calls": self._calls, "generator": self._generator.get_state()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore a result of `state_dict`."""
        self._calls = int(state["calls"])
        self._generator.set_state(state["generator"])

    def _input_means(self, frames: Tensor) -> dict[str, Tensor]:
        """Mean |input| of every channel that a layer reads: weight name -> (in channels,) float64 on the host."""
        means: dict[str, Tensor] = {}
        readers = {member.tensor for group in self._groups for member in group.members if member.role == "in"}

        def listen(weight: str, layer: Layer) -> torch.utils.hooks.RemovableHandle:
            def hook(_: nn.Module, inputs: tuple[Tensor, ...]) -> None:
                channels = 1 if isinstance(layer, nn.Conv2d) else inputs[0].dim() - 1
                others = [axis for axis in range(inputs[0].dim()) if axis != channels]
                means[weight] = inputs[0].detach().abs().mean(others, dtype=torch.float64).cpu()

            return layer.register_forward_pre_hook(hook)

        handles = [listen(weight, self._layers[weight]) for weight in sorted(readers)]
        try:
            self._model(frames)
        finally:
            for handle in handles:
                handle.remove()
        return means if self._average is None else self._average(means, len(frames))

    @torch.no_grad()
    def _recycle(self, group: Group, units: IntArray, role: Role) -> None:
        """Initialise the incoming weights of `units` again ("out"), or zero their outgoing weights ("in")."""
        for member in group.members:
            if member.role != role:
                continue
            layer = self._layers[member.tensor]
            parameter = self._model.get_parameter(member.tensor)
            positions = torch.from_numpy(np.flatnonzero(np.isin(member.units, units))).to(parameter.device)
            if role == "in":
                parameter.index_fill_(member.axis, positions, 0.0)
            else:
                parameter.index_copy_(
                    member.axis, positions, self._fresh(layer, parameter, member.axis, len(positions))
                )
            for optimizer in self._optimizers:
                for value in optimizer.state.get(parameter, {}).values():
                    if isinstance(value, Tensor) and value.shape == parameter.shape:
                        value.index_fill_(member.axis, positions, 0.0)

    def _fresh(self, layer: Layer, parameter: nn.Parameter, axis: int, count: int) -> Tensor:
        """New values for `count` positions along `axis` from PyTorch's default distribution, U(±1/√fan_in)."""
        shape = list(parameter.shape)
        shape[axis] = count
        bound = 1.0 / math.sqrt(layer.weight[0].numel())
        fresh = torch.empty(shape, dtype=torch.float32).uniform_(-bound, bound, generator=self._generator)
        return fresh.to(parameter.device, parameter.dtype)


def _layer_of(model: nn.Module, parameter: str) -> Layer:
    """The layer that owns `parameter`."""
    layer = model.get_submodule(layer_of(parameter))
    if not isinstance(layer, nn.Conv2d | nn.Linear) or (isinstance(layer, nn.Conv2d) and layer.groups > 1):
        raise ValueError(
            f"ReDo supports only plain Conv2d and Linear layers, but {parameter!r} belongs to a "
            f"{type(layer).__name__}: use another method for this network"
        )
    return layer


def _per_unit(means: Tensor, member: Member, num_units: int) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Mean over the positions of each unit (e.g. the 64 columns of a channel after a flatten)."""
    owned = member.units >= 0
    units = member.units[owned]
    sums = np.bincount(units, weights=means.numpy()[owned], minlength=num_units)
    return np.asarray(sums / np.maximum(np.bincount(units, minlength=num_units), 1))
