"""Adjustments change weights of the smaller network inside the step's transaction."""

from __future__ import annotations

import copy
from collections.abc import Sequence

import pytest
import torch
from snapshots import snapshot
from torch import Tensor, nn

import gsprune
from gsprune.rewrite.adjustment import SmallerNetwork
from gsprune.rewrite.plan import RewritePlan
from gsprune.rewrite.session import Session

X = torch.ones(2, 5)


class Shift:
    """Adds what the removed inputs gave on ones to the biases of the heads, in the model and in followers."""

    def __init__(self, error: Exception | None = None) -> None:
        self.error = error
        self.lost: dict[int, Tensor] = {}

    def observe(self, session: Session, plan: RewritePlan) -> None:
        (kept,) = plan.kept["2.weight"].values()
        removed = sorted(set(range(8)) - set(kept.tolist()))
        weight = session.bound.tensors["2.weight"].detach()
        self.lost = {0: weight[:, removed].sum(1)}

    def adjust(self, network: SmallerNetwork) -> Sequence[str]:
        for binding in network.plan.bindings:
            network.writable(binding.module.get_parameter("2.bias")).add_(self.lost[0])
        if self.error is not None:
            raise self.error
        return ["biases were shifted"]


def net() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(5, 8), nn.ReLU(), nn.Linear(8, 3))


@pytest.fixture
def shifts(monkeypatch: pytest.MonkeyPatch) -> list[Shift]:
    """The adjustments that `rescale=True` stands for in these tests."""
    made = [Shift()]
    monkeypatch.setattr("gsprune.pruning.step.Rescaling", lambda: made[0])
    return made


def test_biases_of_the_model_and_its_followers_are_changed(shifts: list[Shift]) -> None:
    model = net()
    target, bias = copy.deepcopy(model), model.get_parameter("2.bias").detach().clone()
    report = gsprune.prune_step(model, 0.5, followers=(target,), example_inputs=X, rescale=True)
    for each in (model, target):
        torch.testing.assert_close(each.get_parameter("2.bias").detach(), bias + shifts[0].lost[0])
    assert "biases were shifted" in report.notes


def test_an_adjustment_that_fails_leaves_everything_as_it_was(shifts: list[Shift]) -> None:
    shifts[0].error = RuntimeError("boom")
    model = net()
    target = copy.deepcopy(model)
    before = snapshot(model), snapshot(target)
    with pytest.raises(RuntimeError, match="boom"):
        gsprune.prune_step(model, 0.5, followers=(target,), example_inputs=X, rescale=True)
    assert (snapshot(model), snapshot(target)) == before
