"""Adds the constants of removed units to the biases of the layers that read them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import nn

from gsprune.compensation.consumer import Consumer
from gsprune.compensation.removable import RemovableUnits
from gsprune.compensation.targets import find_targets
from gsprune.compensation.weights import as_matrices
from gsprune.errors import RewriteError
from gsprune.rewrite.adjustment import SmallerNetwork
from gsprune.rewrite.agreement import DoubtError, compare, settle
from gsprune.rewrite.plan import RewritePlan
from gsprune.rewrite.session import Session
from gsprune.tracing.example import Example
from gsprune.tracing.temporary_eval import temporary_eval

__all__ = ["ConstantFolding"]


class ConstantFolding:
    """Adds W c to the bias of every layer that read the constants c of removed units.

    The outputs of `exact_calls` must be those of the dense network.
    """

    def __init__(self, units: RemovableUnits, exact_calls: Sequence[Example]) -> None:
        self._units, self._calls = units, exact_calls
        self._expected: list[Any] = []

    def observe(self, session: Session, plan: RewritePlan) -> None:
        """Run the dense network."""
        del plan
        self._expected = self._outputs(session.model)

    def adjust(self, network: SmallerNetwork) -> Sequence[str]:
        """Write the biases of the smaller network.

        Raises:
            RewriteError: the output of the smaller network differs from the dense network's.
        """
        for weight, inputs in self._units.inputs.items():
            kept = network.plan.kept.get(weight, {}).get(inputs.axis)
            if kept is not None:
                columns = np.arange(inputs.length, dtype=np.int64)[:, None]
                self._fold(network, Consumer(weight, inputs.axis, kept, columns))
        self._check(self._outputs(network.session.model))
        self._expected = []
        return ()

    def _fold(self, network: SmallerNetwork, consumer: Consumer) -> None:
        inputs = self._units.inputs[consumer.weight]
        use, constants = inputs.use, self._units.constants(consumer.weight).reshape(inputs.use.groups, -1)
        removed = torch.ones(inputs.length, dtype=torch.bool, device=constants.device)
        removed[torch.from_numpy(consumer.kept).to(constants.device)] = False
        constants = constants * (removed.reshape(use.groups, -1) if use.transposed else removed)
        if not inputs.places or not constants.any():
            return
        for target in find_targets(network, network.plan.bindings, consumer, inputs.places):
            matrices = as_matrices(target.rows(consumer), consumer, use.groups, use.transposed)
            target.add_constant(torch.einsum("goip,gi->go", matrices, constants).flatten())

    def _outputs(self, model: nn.Module) -> list[Any]:
        with temporary_eval(model):
            return [call.call(model) for call in self._calls]

    def _check(self, outputs: list[Any]) -> None:
        try:
            difference = compare(outputs, self._expected)
        except DoubtError as doubt:
            difference = settle(doubt, None, None)
        if difference is not None:
            raise RewriteError(
                f"removing constant units changed the output ({difference}); nothing was changed. Exclude the layers"
                " that are special with `ignore=`, or report the network"
            )
