"""Random networks become on a GPU, bit for bit, what they become on the CPU: weights, gradients and Adam's moments."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from hypothesis import given, reject
from hypothesis import strategies as st
from random_networks import KINDS, RandomNet, example, loss_of, networks

import gsprune


def trained(net: RandomNet) -> torch.optim.Optimizer:
    """Gives gradients and moments to what takes part."""
    optimizer = torch.optim.Adam(net.parameters(), lr=1e-3)
    loss_of(net, example(net)).backward()
    optimizer.step()
    return optimizer


def moved(optimizer: torch.optim.Optimizer, net: RandomNet, other: RandomNet) -> torch.optim.Optimizer:
    """The optimizer of a copy that is elsewhere, with the same gradients and moments."""
    copied = torch.optim.Adam(other.parameters(), lr=1e-3)
    copied.load_state_dict(optimizer.state_dict())
    for ours, theirs in zip(net.parameters(), other.parameters(), strict=True):
        theirs.grad = None if ours.grad is None else ours.grad.to(theirs.device)
    return copied


def tensors_of(net: RandomNet, optimizer: torch.optim.Optimizer) -> list[torch.Tensor]:
    """Everything that follows a step."""
    gradients = [parameter.grad for parameter in net.parameters() if parameter.grad is not None]
    states = [v for state in optimizer.state.values() for v in state.values() if isinstance(v, torch.Tensor)]
    return [*net.state_dict().values(), *gradients, *states]


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@given(networks(KINDS), st.floats(0.05, 0.9), st.sampled_from(["local", "global", "isomorphic"]))
def test_a_gpu_prunes_as_the_cpu_does(net: RandomNet, sparsity: float, scope: Any) -> None:
    net = net.float()
    other = copy.deepcopy(net).cuda()
    inputs = tuple(tensor.cuda() for tensor in example(net))
    try:
        other(*inputs)
    except (RuntimeError, NotImplementedError):
        reject()  # it makes tensors on the CPU, or torch has no such operation here
    optimizer = trained(net)
    with torch.no_grad():
        for ours, theirs in zip(net.state_dict().values(), other.state_dict().values(), strict=True):
            theirs.copy_(ours)
    others = moved(optimizer, net, other)
    for part in (0.5, 1.0):
        ours = gsprune.prune_step(net, part * sparsity, scope=scope, optimizer=optimizer, example_inputs=example(net))
        theirs = gsprune.prune_step(other, part * sparsity, scope=scope, optimizer=others, example_inputs=inputs)
        assert [g.removed.tolist() for g in ours.groups] == [g.removed.tolist() for g in theirs.groups]
        for a, b in zip(tensors_of(net, optimizer), tensors_of(other, others), strict=True):
            assert torch.equal(a, b.cpu())
            assert a.stride() == b.stride()
