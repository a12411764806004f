"""Parts of a model that the example never ran."""

from __future__ import annotations

import warnings

import pytest
import torch
from torch import Tensor, nn

import gsprune


def mlp(inputs: int, width: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(inputs, width), nn.ReLU(), nn.Linear(width, outputs))


class Tasks(nn.Module):
    """A trunk with a head per task in a dictionary; the heads are of several kinds."""

    shape = (3, 6)

    def __init__(self) -> None:
        super().__init__()
        self.trunk = nn.Sequential(mlp(6, 24, 16), nn.ReLU())
        self.heads = nn.ModuleDict({"a": nn.Linear(16, 3), "b": mlp(16, 12, 4), "c": nn.Linear(16, 7)})

    def forward(self, x: Tensor, part: str = "a") -> Tensor:
        return self.heads[part](self.trunk(x))


class Agents(nn.Module):
    """Two heads as attributes behind convolutions, which only the heads' code flattens."""

    shape = (3, 3, 8, 8)

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 24, 3)
        self.trunk = nn.Conv2d(24, 16, 3)
        self.first = nn.Linear(16 * 16, 3)
        self.second = nn.Linear(16 * 16, 5)

    def forward(self, x: Tensor, part: str = "first") -> Tensor:
        return getattr(self, part)(self.trunk(self.stem(x).relu()).relu().flatten(1))


class Domains(nn.Module):
    """A batch norm per domain."""

    shape = (3, 3, 8, 8)

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 24, 3)
        self.trunk = nn.Conv2d(24, 16, 3)
        self.norms = nn.ModuleList(nn.BatchNorm2d(16) for _ in range(3))
        self.last = nn.Conv2d(16, 2, 1)

    def forward(self, x: Tensor, part: int = 0) -> Tensor:
        return self.last(self.norms[part](self.trunk(self.stem(x).relu())))


class Exits(nn.Module):
    """Equal layers of which the example runs some: the next one reads what the last one made."""

    shape = (3, 6)

    def __init__(self) -> None:
        super().__init__()
        self.stem = mlp(6, 24, 16)
        self.layers = nn.ModuleList(nn.Linear(16, 16) for _ in range(4))
        self.exit = nn.Linear(16, 2)

    def forward(self, x: Tensor, part: int = 2) -> Tensor:
        x = self.stem(x)
        for layer in self.layers[:part]:
            x = layer(x).relu()
        return self.exit(x)


CASES = {Tasks: ["a", "b", "c"], Agents: ["first", "second"], Domains: [0, 1, 2], Exits: [1, 2, 3, 4]}
UNSEEN = {
    Tasks: ("heads.b", "heads.c"),
    Agents: ("second",),
    Domains: ("norms.1", "norms.2"),
    Exits: ("layers.2", "layers.3"),
}


@pytest.mark.parametrize("kind", CASES)
def test_what_an_unseen_part_may_read_keeps_its_width_and_the_rest_is_pruned(kind: type) -> None:
    torch.manual_seed(0)
    model, x = kind(), torch.randn(kind.shape)
    with pytest.warns(gsprune.PruneWarning, match=f"the example did not run {', '.join(UNSEEN[kind])} of"):
        report = gsprune.prune_step(model, 0.5, example_inputs=x)
    assert {group.after for group in report.groups if group.initial == 24} == {12}
    reasons = [item.reason for item in report.protected if "was not run by the example" in item.reason]
    assert reasons
    assert reasons[0].startswith(UNSEEN[kind][0])
    for part in CASES[kind]:
        assert torch.isfinite(model(x, part)).all()


@pytest.mark.parametrize("kind", CASES)
def test_an_example_that_runs_every_part_lets_everything_go_in_silence(kind: type) -> None:
    model, x = kind(), torch.randn(kind.shape)
    report = gsprune.prune_step(model, 0.5, example_inputs=x, forward=lambda m, x: [m(x, part) for part in CASES[kind]])
    assert all(group.after == group.initial // 2 for group in report.groups)
    assert {16, 24} <= {group.initial for group in report.groups}
    assert gsprune.trace(kind(), x, lambda m, x: [m(x, part) for part in CASES[kind]]).unseen == ()
    for part in CASES[kind]:
        model(x, part)


def test_the_warning_comes_with_the_first_step_alone() -> None:
    model, x = Tasks(), torch.randn(3, 6)
    with pytest.warns(gsprune.PruneWarning, match="did not run"):
        gsprune.prune_step(model, 0.25, example_inputs=x)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert gsprune.prune_step(model, 0.5).changed


def test_a_dead_layer_of_another_kind_costs_nothing() -> None:
    class Dead(Agents):
        def __init__(self) -> None:
            super().__init__()
            del self.second
            self.idle = nn.Conv2d(24, 16, 1)

    report = gsprune.prune_step(Dead(), 0.5, example_inputs=torch.randn(3, 3, 8, 8))
    assert [group.after for group in report.groups] == [12, 8]
    assert ("idle",) in [item.names for item in report.protected if "not used" in item.reason]
