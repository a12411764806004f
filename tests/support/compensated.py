"""Units that others can stand in for, and a criterion that removes exactly these."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import nn

from gsprune.backends import get_backend
from gsprune.compensation.compensation import Compensation, CompensationMode
from gsprune.compensation.report import CompensationReport
from gsprune.pruning.session import open_session, with_binding
from gsprune.rewrite.network import RewriteOptions, rewrite_network
from gsprune.rewrite.tensors import canonical_tensors
from gsprune.rewrite.verification import ForwardBudget, Refusal
from gsprune.tracing.example import Example
from gsprune.tracing.graph import Graph


def remove_units(
    model: nn.Module,
    units: Mapping[str, Sequence[int]],
    inputs: tuple[Any, ...],
    calibration: Sequence[tuple[Any, ...]] | None = None,
    mode: CompensationMode = "linear",
) -> CompensationReport | None:
    """Remove units, given per group, and compensate; None where the code of the model keeps them."""
    session = with_binding(model, open_session(model, inputs, None))
    keep = np.ones(session.groups.num_units, dtype=bool)
    for group, first in zip(session.groups.traced.groups, session.groups.first_unit, strict=False):
        keep[first + np.asarray(units.get(group.name, ()), dtype=np.int64)] = False
    compensation = Compensation([Example(batch) for batch in calibration or [inputs]], mode)
    options = RewriteOptions(get_backend("auto", torch.device("cpu")), compensation)
    try:
        rewrite_network(session, keep, [], [], options, ForwardBudget())
    except Refusal:
        return None
    return compensation.report


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
