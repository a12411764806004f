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


class Gaussian(nn.Module):
    """A policy head that returns a distribution."""

    def __init__(self) -> None:
        super().__init__()
        self.mean, self.log_std = nn.Linear(16, 3), nn.Parameter(torch.zeros(3))

    def forward(self, x: Tensor) -> torch.distributions.Normal:
        return torch.distributions.Normal(self.mean(x), self.log_std.exp())


class Subclass(nn.Linear):
    pass


class ActorCritic(nn.Module):
    """Returns the policy; `value` runs the critic."""

    def __init__(self, actor: nn.Module, critic: nn.Module) -> None:
        super().__init__()
        self.trunk = nn.Sequential(mlp(6, 24, 16), nn.ReLU())
        self.actor, self.critic = actor, critic

    def forward(self, x: Tensor) -> object:
        return self.actor(self.trunk(x))

    def value(self, x: Tensor) -> Tensor:
        return self.critic(self.trunk(x))


HEADS = {
    "deeper actor": (mlp(16, 12, 3), nn.Linear(16, 1)),
    "deeper critic": (nn.Linear(16, 3), mlp(16, 12, 1)),
    "distribution": (Gaussian(), nn.Linear(16, 5)),
    "other class": (Subclass(16, 3), nn.Linear(16, 5)),
    "norm first": (nn.Linear(16, 3), nn.Sequential(nn.LayerNorm(16), nn.Linear(16, 5))),
}


@pytest.mark.parametrize("heads", HEADS.values(), ids=HEADS)
def test_an_unused_head_of_another_class_keeps_its_inputs(heads: tuple[nn.Module, nn.Module]) -> None:
    model, x = ActorCritic(*heads), torch.randn(3, 6)
    with pytest.warns(gsprune.PruneWarning, match="the example did not run critic of ActorCritic"):
        report = gsprune.prune_step(model, 0.5, example_inputs=x)
    assert {group.initial: group.after for group in report.groups}[24] == 12
    assert torch.isfinite(model.value(x)).all()


class Contrast(ActorCritic):
    """A bare matrix compares features, as in CURL."""

    def __init__(self) -> None:
        super().__init__(nn.Linear(16, 3), nn.Identity())
        self.matrix = nn.Parameter(torch.rand(16, 16))

    def value(self, x: Tensor) -> Tensor:
        features = self.trunk(x)
        return features @ self.matrix @ features.T


class Decoding(ActorCritic):
    """The parts of a decoder are in a dictionary, none of which runs."""

    def __init__(self) -> None:
        super().__init__(nn.Linear(16, 3), nn.Identity())
        self.decoder = nn.ModuleDict({"hidden": nn.Linear(16, 10), "last": nn.Linear(10, 6)})

    def value(self, x: Tensor) -> Tensor:
        return self.decoder["last"](self.decoder["hidden"](self.trunk(x)).relu())


class Branchy(ActorCritic):
    """Leaves at the first exit if it is sure."""

    def __init__(self) -> None:
        super().__init__(nn.Linear(16, 3), nn.Identity())
        self.is_sure = True
        self.later, self.last = nn.Linear(16, 30), nn.Linear(30, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.trunk(x)
        return self.actor(x) if self.is_sure else self.last(self.later(x))

    def value(self, x: Tensor) -> Tensor:
        self.is_sure = False
        return self(x)


@pytest.mark.parametrize(("kind", "part"), [(Contrast, "matrix"), (Decoding, "decoder"), (Branchy, "later")])
def test_unused_matrices_lists_and_branches_keep_their_inputs(kind: type[ActorCritic], part: str) -> None:
    model, x = kind(), torch.randn(3, 6)
    with pytest.warns(gsprune.PruneWarning, match=f"the example did not run {part} of"):
        report = gsprune.prune_step(model, 0.5, example_inputs=x)
    assert [group.after for group in report.groups] == [12]
    assert torch.isfinite(model.value(x)).all()


def test_an_unused_value_head_of_a_width_that_no_tensor_has_is_named() -> None:
    model, x = ActorCritic(nn.Linear(16, 3), mlp(16 + 3, 12, 1)), torch.randn(3, 6)
    with pytest.warns(gsprune.PruneWarning, match=r"the example did not run critic of .* will fail"):
        report = gsprune.prune_step(model, 0.5, example_inputs=x)
    assert [group.after for group in report.groups] == [12, 8]


class Idle(nn.Module):
    """A convolution reads a tensor in the middle, in a call besides the forward."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.trunk, self.head = nn.Conv2d(3, 24, 3), nn.Conv2d(24, 16, 3), nn.Conv2d(16, 2, 1)
        self.aside = nn.Conv2d(24, 5, 1)
        self.norm, self.token = nn.GroupNorm(1, 16), nn.Parameter(torch.zeros(1, 1, 16))

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.trunk(self.stem(x).relu()).relu())


def test_an_unused_part_with_a_gradient_keeps_its_inputs() -> None:
    model, x = Idle(), torch.randn(2, 3, 8, 8)
    (model(x).sum() + model.aside(model.stem(x)).sum()).backward()
    with pytest.warns(gsprune.PruneWarning, match="the example did not run aside of Idle"):
        report = gsprune.prune_step(model, 0.5, example_inputs=x)
    assert [group.after for group in report.groups] == [8]
    assert model.aside(model.stem(x)).shape == (2, 5, 6, 6)


def test_unused_layers_norms_and_tokens_without_a_gradient_cost_nothing() -> None:
    model, x = Idle(), torch.randn(2, 3, 8, 8)
    model(x).sum().backward()
    assert [group.after for group in gsprune.prune_step(model, 0.5, example_inputs=x).groups] == [12, 8]
