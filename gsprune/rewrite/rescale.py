"""Optional rescaling of kept output channels after a step."""

from __future__ import annotations

import torch
from torch import Tensor

from gsprune.rewrite.adjustment import SmallerNetwork
from gsprune.rewrite.plan import RewritePlan
from gsprune.rewrite.session import Session
from gsprune.rewrite.tensors import canonical_tensors

__all__ = ["Rescaling"]


class Rescaling:
    """Multiplies the kept output channels of every weight that lost inputs, and their biases.

        factor_o = max(‖w_o before‖₂ / ‖w_o after‖₂, 1), and 1 where both norms are 0 or the row became 0

    A weight's output axis is the one with role "out". The followers are not rescaled.
    """

    def observe(self, session: Session, plan: RewritePlan) -> None:
        """Do nothing: `adjust` gets the dense weights."""

    def adjust(self, network: SmallerNetwork) -> tuple[str, ...]:
        """Scale the rows that lost inputs."""
        members = [member for group in network.session.groups.traced.groups for member in group.members]
        out_axes = {member.tensor: member.axis for member in members if member.role == "out"}
        in_axes = {(member.tensor, member.axis) for member in members if member.role == "in"}
        tensors = canonical_tensors(network.session.model)
        for name, keeps in network.plan.kept.items():
            dense = network.dense[id(tensors[name])]
            if dense.ndim < 2 or not any((name, axis) in in_axes for axis in keeps):
                continue
            axis = out_axes.get(name, 0)
            if axis in keeps:
                dense = dense.index_select(axis, torch.from_numpy(keeps[axis]).to(dense.device))
            weight = network.writable(tensors[name])
            before, after = _norms(dense, axis), _norms(weight, axis)
            factor = torch.where(after > 0, before / after, 1.0).clamp_(min=1.0).to(weight.dtype)
            weight.mul_(factor.reshape([-1 if a == axis else 1 for a in range(weight.ndim)]))
            head, dot, _ = name.rpartition(".")
            bias = tensors.get(f"{head}{dot}bias")
            if bias is not None:
                network.writable(bias).mul_(factor)
        return ()


def _norms(weight: Tensor, axis: int) -> Tensor:
    """L2 norms along everything but `axis`, in float64."""
    norms: Tensor = weight.movedim(axis, 0).flatten(1).double().norm(dim=1)
    return norms
