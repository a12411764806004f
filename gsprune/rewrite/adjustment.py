"""The hook for changes of weights inside a step: rescaling, compensation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from torch import Tensor

from gsprune.rewrite.plan import RewritePlan
from gsprune.rewrite.session import Session
from gsprune.rewrite.transaction import Transaction

__all__ = ["Adjustment", "SmallerNetwork"]


class SmallerNetwork:
    """A rewritten network that has passed its check, while its step can still be taken back.

    Attributes:
        session: the session before the step: `model`, `example`, and in `groups` the groups and their members.
        plan: the removal; `plan.kept` has the kept positions of every axis that is cut, and `plan.bindings` the tensors
            of model and followers by name.
        dense: id of a parameter or buffer that was cut -> its contents before the step.
    """

    def __init__(
        self, session: Session, plan: RewritePlan, dense: Mapping[int, Tensor], transaction: Transaction
    ) -> None:
        self.session, self.plan, self.dense = session, plan, dense
        self._transaction = transaction
        self._writable = set(dense)  # sliced tensors have new memory

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
