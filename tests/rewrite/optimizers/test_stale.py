"""An optimizer that was not passed to a pruning step raises an error at its next step, and has not stepped."""

from __future__ import annotations

import gc
from collections.abc import Callable
from functools import partial

import pytest
import torch
from torch import nn, optim

import gsprune
from gsprune.rewrite.optimizers.stale import _guard

X = torch.ones(3, 4)
WITH_STATE: dict[str, Callable[..., optim.Optimizer]] = {
    "SGD": partial(optim.SGD, lr=0.1, momentum=0.9),
    "fused SGD": partial(optim.SGD, lr=0.1, momentum=0.9, fused=True),
    "fused Adam": partial(optim.Adam, fused=True),
    "fused AdamW": partial(optim.AdamW, fused=True, amsgrad=True),
    "fused Adagrad": partial(optim.Adagrad, fused=True),
    "ASGD": optim.ASGD,
    "foreach RMSprop": partial(optim.RMSprop, foreach=True),
}


def net() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 2))


def step(model: nn.Module, *optimizers: optim.Optimizer) -> None:
    model.zero_grad()
    model(X).square().sum().backward()
    for optimizer in optimizers:
        optimizer.step()


@pytest.mark.parametrize("name", WITH_STATE)
def test_moments_of_former_shapes_are_refused_with_the_way_out(name: str) -> None:
    model = net()
    optimizer = WITH_STATE[name](model.parameters())
    step(model, optimizer)
    for sparsity in (0.25, 0.875):
        gsprune.prune_step(model, sparsity, example_inputs=X)
    before = [parameter.detach().clone() for parameter in model.parameters()]
    for _ in range(2):
        with pytest.raises(gsprune.RewriteError, match=r"without this optimizer.*`optimizer=`.*new optimizer"):
            step(model, optimizer)
    assert all(torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))
    step(model, WITH_STATE[name](model.parameters()))


def test_one_of_two_optimizers_that_was_forgotten_is_refused() -> None:
    model = net()
    first, second = (optim.Adam(model[i].parameters(), fused=True) for i in (0, 2))
    step(model, first, second)
    gsprune.prune_step(model, 0.5, optimizer=first, example_inputs=X)
    step(model, first)
    with pytest.raises(gsprune.RewriteError, match="without this optimizer"):
        step(model, second)


def test_optimizers_in_order_go_on() -> None:
    model, other = net(), net()
    told, bystander = optim.Adam(model.parameters(), fused=True), optim.Adam(other.parameters())
    step(model, told)
    step(other, bystander)
    gsprune.prune_step(model, 0.5, optimizer=told, example_inputs=X)
    gsprune.prune_step(other, 0.5, example_inputs=X)
    step(model, told)
    fresh, plain = optim.Adam(other.parameters()), optim.SGD(other.parameters(), 0.1)
    step(other, fresh, plain)
    step(other, fresh, plain)


def test_parameters_are_not_kept_alive() -> None:
    gc.collect()
    known = len(_guard.shapes)
    model = net()
    gsprune.prune_step(model, 0.5, example_inputs=X)
    assert len(_guard.shapes) > known
    del model
    gc.collect()
    assert len(_guard.shapes) == known
