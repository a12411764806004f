"""The hook for changes of weights inside a step: rescaling, compensation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

from gsprune.rewrite.binding import Binding
from gsprune.rewrite.plan import RewritePlan
from gsprune.rewrite.session import Session
from gsprune.rewrite.transaction import Transaction
from gsprune.tracing.structure import Structure

__all__ = ["Adjustment", "SmallerNetwork"]


@dataclass(frozen=True, slots=True)
class SmallerNetwork:
    """A rewritten network that has passed its check, while its step can still be taken back.

    Attributes:
        session: the session before the step: `model`, `example`, and in `groups` the groups and their members.
        structure: the groups after the step.
        plan: `plan.keeps(name)` gives the kept positions of every axis of a tensor.
        bindings: the model's tensors by name, then those of every follower.
        transaction: records every change.
    """

    session: Session
    structure: Structure
    plan: RewritePlan
    bindings: Sequence[Binding]
    transaction: Transaction

    def change(self, tensor: Tensor, value: Tensor) -> None:
        """Give a weight or bias (of the model or a follower) new values of its shape, dtype and device."""
        self.transaction.swap([tensor], [value])


class Adjustment(Protocol):
    """Changes weights of a network that a step has made smaller.

    An exception in either method takes the whole step back.
    """

    def observe(self, session: Session, plan: RewritePlan) -> None:
        """Look at the dense network; nothing has been changed yet.

        A step that is planned again calls this again, with the new plan.
        """

    def adjust(self, network: SmallerNetwork) -> None:
        """Change weights of the smaller network by `SmallerNetwork.change`."""
