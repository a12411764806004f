"""A step on chosen units with compensation, and units that the others can stand in for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import nn

from gsprune.backends import get_backend
from gsprune.compensation.compensation import Compensation, CompensationReport, Mode
from gsprune.rewrite.apply import apply_plan, sliced
from gsprune.rewrite.binding import Binding
from gsprune.rewrite.plan import plan_rewrite
from gsprune.rewrite.state import Example
from gsprune.rewrite.tensors import canonical_tensors
from gsprune.rewrite.transaction import Transaction
from gsprune.tracing.graph import Graph
from gsprune.tracing.structure import Structure
from gsprune.tracing.tracer import trace


def remove_units(
    model: nn.Module,
    units: Mapping[str, Sequence[int]],
    inputs: tuple[Any, ...],
    calibration: Sequence[tuple[Any, ...]] | None = None,
    mode: Mode = "linear",
) -> CompensationReport:
    """Remove units, given per group, and compensate; an exception leaves the model dense."""
    graph, _ = trace(model, inputs)
    structure = Structure.of(graph)
    removed = {name: np.asarray(positions, dtype=np.int64) for name, positions in units.items()}
    after, keeps = structure.pruned(structure.mask(removed))
    plan = plan_rewrite([Binding(model, structure)], after, keeps, [])
    kept = {name: dict(plan.keeps(name)) for name in plan.model_index}
    calls = [Example(batch) for batch in calibration or [inputs]]
    compensation = Compensation(model, graph, kept, calls, mode)
    compensation.record()
    with Transaction() as transaction:
        apply_plan(transaction, plan, sliced(plan, get_backend("auto", torch.device("cpu"))))
        return compensation.fit()


def duplicate_units(model: nn.Module, graph: Graph, pairs: Mapping[str, Sequence[tuple[int, int]]]) -> None:
    """Make units compute what others compute: group -> [(original, duplicate)]."""
    tensors = canonical_tensors(model)
    with torch.no_grad():
        for group in graph.groups:
            for original, duplicate in pairs.get(group.name, ()):
                for member in group.members:
                    if member.role == "out":
                        ours, theirs = (np.flatnonzero(member.units == unit) for unit in (original, duplicate))
                        tensor = tensors[member.tensor]
                        index = torch.from_numpy(theirs)
                        tensor.index_copy_(member.axis, index, tensor.index_select(member.axis, torch.from_numpy(ours)))
