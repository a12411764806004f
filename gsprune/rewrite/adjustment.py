"""The hook for changes of weights inside a step: rescaling, compensation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from torch import Tensor

from gsprune.rewrite.plan import RewritePlan
from gsprune.rewrite.session import Session
from gsprune.rewrite.transaction import Transaction
from gsprune.tracing.structure import Structure

__all__ = ["Adjustment", "SmallerNetwork"]


class SmallerNetwork:
    """A rewritten network that has passed its check, while its step can still be taken back.

    Attributes:
        session: the session before the step: `model`, `example`, and in `groups` the groups and their members.
        structure: the groups after the step.
        plan: the removal; `plan.kept` has the kept positions of every axis that is cut, and `plan.bindings` the tensors
            of model and followers by name.
    """

    def __init__(
        self,
        session: Session,
        structure: Structure,
        plan: RewritePlan,
        transaction: Transaction,
    ) -> None:
        self.session, self.structure, self.plan = session, structure, plan
        self._transaction = transaction
        self._writable = set(map(id, plan.tensors[: plan.num_owned]))  # sliced tensors have new memory

    def writable(self, tensor: Tensor) -> Tensor:
        """A weight or bias of the model or a follower, to be written in place; taking back the step undoes it."""
        if id(tensor) not in self._writable:
            self._transaction.swap([tensor], [tensor.detach().clone()])
            self._writable.add(id(tensor))
        return tensor.detach()


class Adjustment(Protocol):
    """Changes weights of a network that a step has made smaller.

    An exception in either method takes the whole step back.
    """

    def observe(self, session: Session, plan: RewritePlan) -> None:
        """Look at the dense network; nothing has been changed yet.

        A step that is planned again calls this again, with the new plan.
        """

    def adjust(self, network: SmallerNetwork) -> Sequence[str]:
        """Change weights of the smaller network through `SmallerNetwork.writable`; returns lines for the report."""
