"""The weights that a compensation changes: those of the model, of its copies and of its followers."""

from __future__ import annotations

from collections.abc import Container, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from gsprune.arrays import IntArray
from gsprune.compensation.constant_places import ConstantPlace
from gsprune.compensation.consumer import Consumer
from gsprune.rewrite.adjustment import SmallerNetwork
from gsprune.rewrite.binding import Binding
from gsprune.rewrite.plan import RewritePlan
from gsprune.rewrite.session import Session
from gsprune.tracing.names import named_tensors

__all__ = ["TargetWeight", "dense_weights", "find_targets"]


@dataclass
class TargetWeight:
    """A consumer's weight in the pruned model or a follower.

    Attributes:
        dense: the weight before the step.
        pruned: the weight after it, which is written to.
        constants: (bias or running mean that takes the constant, its first element that does, sign); the sign is -1
            for running means, which are subtracted.
        outputs: axis -> kept positions, for the weight's other axes that were cut.
        scaled: True if the step has scaled rows of the weight (`gsprune.rewrite.attention_scale`).
    """

    dense: Tensor
    pruned: Tensor
    constants: Sequence[tuple[Tensor, int, float]]
    outputs: Mapping[int, IntArray]
    scaled: bool = False

    def __post_init__(self) -> None:
        self.base = self.pruned.clone()
        self.constant_bases = [constant.clone() for constant, _, _ in self.constants]

    def rows(self, consumer: Consumer) -> Tensor:
        """The dense weight with the outputs of the pruned one, in float64."""
        rows = self.dense.double()
        for axis, kept in self.outputs.items():
            rows = rows.index_select(axis, torch.from_numpy(kept).to(rows.device))
        if not self.scaled:
            return rows
        inputs = torch.from_numpy(consumer.kept).to(rows.device)
        before = rows.index_select(consumer.axis, inputs).movedim(consumer.axis, -1)
        after = self.base.double().movedim(consumer.axis, -1)
        factors = (before * after).sum(-1, keepdim=True) / before.square().sum(-1, keepdim=True)
        return rows * torch.nan_to_num(factors, nan=1.0).movedim(-1, consumer.axis)

    def add_constant(self, shift: Tensor) -> None:
        """Add (outputs,) float64 to the outputs of the weight, through the biases behind it."""
        for (constant, start, sign), base in zip(self.constants, self.constant_bases, strict=True):
            span = slice(start, start + len(shift))
            written = constant.view(-1)[span]
            assert len(written) == len(shift)
            written.copy_(base.view(-1)[span].double() + sign * shift)


def find_targets(
    network: SmallerNetwork, bindings: Sequence[Binding], consumer: Consumer, places: Sequence[ConstantPlace]
) -> Iterator[TargetWeight]:
    """The targets of one consumer in some bindings of `network.plan`; `places` take its constant."""
    session, plan = network.session, network.plan
    scaled = any(queries.tensor == consumer.weight for queries in session.groups.traced.queries)
    outputs = {a: kept for a, kept in plan.kept[consumer.weight].items() if a != consumer.axis}
    for weight, tensors, (old, new) in _weights(session, bindings, consumer.weight, network.dense):
        pruned, constants = network.writable(weight), []
        for place in places:
            owner = tensors.get(new + place.tensor.removeprefix(old))
            if owner is not None:
                sign = -1.0 if place.tensor.endswith("running_mean") else 1.0
                kept = next(iter(plan.kept.get(place.tensor, {}).values()), None)  # one axis has all elements
                start = place.start if kept is None else int(np.searchsorted(kept, place.start))
                constants.append((network.writable(owner), start, sign))
        yield TargetWeight(network.dense[id(weight)], pruned, constants, outputs, scaled)


def dense_weights(session: Session, plan: RewritePlan, bindings: Sequence[Binding], weight: str) -> Tensor:
    """The concatenated dense weights of a convolution's targets, without removed outputs; called before the step."""
    cut_ids = set(map(id, plan.tensors[: plan.num_owned]))
    weights = [tensor.detach() for tensor, _, _ in _weights(session, bindings, weight, cut_ids)]
    kept = plan.kept[weight].get(0)
    if kept is not None:
        weights = [tensor.index_select(0, torch.from_numpy(kept).to(tensor.device)) for tensor in weights]
    return torch.cat(weights)


def _weights(
    session: Session, bindings: Sequence[Binding], weight: str, cut_ids: Container[int]
) -> Iterator[tuple[Tensor, dict[str, Tensor], tuple[str, str]]]:
    """(tensor, all tensors of its module, prefixes of the names of original and copy) of every weight of that name."""
    prefixes = [("", "")]
    copies = session.groups.traced.copies
    prefixes += [(f"{old}.", f"{new}.") for new, old in copies.items() if weight.startswith(f"{old}.")]
    for binding in bindings:
        tensors = {**named_tensors(binding.module), **binding.tensors}
        for old, new in prefixes:
            tensor = tensors.get(new + weight.removeprefix(old))
            if tensor is not None and id(tensor) in cut_ids:
                yield tensor, tensors, (old, new)
