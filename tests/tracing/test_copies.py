"""Copies inside a model that lose the channels of their originals."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

import gsprune


def encoder(width: int = 16) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(3, width, 3),
        nn.BatchNorm2d(width),
        nn.ReLU(),
        nn.Conv2d(width, 12, 3),
        nn.Flatten(),
        nn.LazyLinear(8),
    )


def frozen_copy(module: nn.Module) -> nn.Module:
    return copy.deepcopy(module).requires_grad_(False)


def mix(model: nn.Module, original: str, other: str, momentum: float = 0.9) -> None:
    with torch.no_grad():
        for a, b in zip(
            model.get_submodule(original).parameters(), model.get_submodule(other).parameters(), strict=True
        ):
            b.mul_(momentum).add_(a, alpha=1 - momentum)


X = torch.randn(4, 3, 8, 8)


class Pair(nn.Module):
    """An encoder and a copy of it, which the traced call runs first, last or not at all."""

    def __init__(self, runs: str, make: object = frozen_copy) -> None:
        super().__init__()
        net = encoder()
        net(X)
        if runs == "first":
            self.target, self.net = make(net), net
        else:
            self.net, self.target = net, make(net)
        self.runs = runs

    def forward(self, x: Tensor) -> Tensor:
        if self.runs == "never":
            return self.net(x)
        if self.runs == "first":
            key = self.target(x)
            return (F.normalize(self.net(x), dim=1) * F.normalize(key, dim=1)).sum(1)
        return (F.normalize(self.net(x), dim=1) * F.normalize(self.target(x), dim=1)).sum(1)


def removed_alike(report: gsprune.PruneReport, original: str, other: str) -> bool:
    """Whether both lost the same, and something; what either lost beyond the other is a difference."""
    of = [
        {
            (name.removeprefix(f"{part}."), axis): positions.tolist()
            for name, axes in report.removed.items()
            if name.startswith(f"{part}.")
            for axis, positions in axes.items()
        }
        for part in (original, other)
    ]
    return of[0] == of[1] and bool(of[0])


@pytest.mark.parametrize("runs", ["first", "last", "never"])
@pytest.mark.parametrize("importance", ["l1", "l2", "bn_scale", "fpgm", "random"])
def test_a_frozen_copy_loses_the_channels_of_its_original(runs: str, importance: str) -> None:
    torch.manual_seed(0)
    model = Pair(runs)
    with torch.no_grad():  # the copy lags behind, so that its own scores would choose other channels
        for parameter in model.net.parameters():
            parameter.add_(torch.randn_like(parameter) * parameter.abs().mean())
    alone = copy.deepcopy(model.net)
    ignore = ("3", "5") if importance == "bn_scale" else ()  # layers without a norm behind them
    report = gsprune.prune_step(
        model, 0.5, example_inputs=X, importance=importance, ignore=[f"net.{name}" for name in ignore]
    )
    assert removed_alike(report, "net", "target")
    assert model.target[0].weight.shape == model.net[0].weight.shape == (8, 3, 3, 3)
    if importance != "random":
        apart = gsprune.prune_step(alone, 0.5, example_inputs=X, importance=importance, ignore=ignore)
        assert report.removed["net.0.weight"][0].tolist() == apart.removed["0.weight"][0].tolist()
    mix(model, "net", "target")
    model(X)


def test_scores_that_need_gradients_read_those_of_the_original() -> None:
    model = Pair("last")
    model(X).sum().backward()
    assert removed_alike(gsprune.prune_step(model, 0.5, example_inputs=X, importance="taylor"), "net", "target")


def test_buffers_in_place_of_parameters_are_a_copy_too() -> None:
    def as_buffers(module: nn.Module) -> nn.Module:
        made = copy.deepcopy(module)
        for layer in made.modules():
            for name, parameter in list(layer._parameters.items()):
                del layer._parameters[name]
                layer.register_buffer(name, parameter.detach())
        return made

    assert removed_alike(gsprune.prune_step(Pair("never", as_buffers), 0.5, example_inputs=X), "net", "target")


def test_torchs_average_inside_the_model_is_a_copy() -> None:
    model = Pair("never", AveragedModel)
    assert removed_alike(gsprune.prune_step(model, 0.5, example_inputs=X), "net", "target.module")
    model.target.update_parameters(model.net)


class Critics(nn.Module):
    """Twin critics and their targets in lists, as in SAC; the actor's call runs none of the targets."""

    def __init__(self) -> None:
        super().__init__()
        self.critics = nn.ModuleList(
            nn.Sequential(nn.Linear(5, 16), nn.ReLU(), nn.Linear(16, 16), nn.ReLU(), nn.Linear(16, 1)) for _ in range(2)
        )
        self.targets = copy.deepcopy(self.critics).requires_grad_(False)

    def forward(self, x: Tensor) -> Tensor:
        return torch.min(self.critics[0](x), self.critics[1](x))


def test_each_of_several_targets_follows_its_own_critic() -> None:
    torch.manual_seed(0)
    model = Critics()
    report = gsprune.prune_step(model, 0.5, example_inputs=torch.randn(3, 5))
    for i in range(2):
        assert removed_alike(report, f"critics.{i}", f"targets.{i}")
        mix(model, f"critics.{i}", f"targets.{i}")
    assert report.removed["critics.0.0.weight"][0].tolist() != report.removed["critics.1.0.weight"][0].tolist()


def test_several_copies_of_one_original_follow_it() -> None:
    model = Pair("last")
    model.slow = frozen_copy(model.net)
    report = gsprune.prune_step(model, 0.5, example_inputs=X)
    assert removed_alike(report, "net", "target")
    assert removed_alike(report, "net", "slow")


def test_frozen_blocks_that_are_merely_built_alike_are_pruned_on_their_own() -> None:
    torch.manual_seed(0)
    block = lambda: nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, 6))  # noqa: E731
    model = nn.Sequential(block().requires_grad_(False), block(), nn.Linear(6, 2))
    report = gsprune.prune_step(model, 0.5, example_inputs=torch.randn(3, 6))
    assert gsprune.trace(model, torch.randn(3, 6)).copies == {}
    assert report.removed["0.0.weight"][0].tolist() != report.removed["1.0.weight"][0].tolist()


def test_a_single_frozen_layer_is_no_copy() -> None:
    model = nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 2))
    model[2].load_state_dict(model[0].state_dict())
    model[2].requires_grad_(False)
    assert gsprune.trace(model, torch.randn(3, 8)).copies == {}


def test_the_graph_and_the_report_name_the_copy() -> None:
    model = Pair("never")
    graph = gsprune.trace(model, X)
    assert graph.copies == {"target": "net"}
    assert "target loses the channels that net loses" in str(graph)
    assert "target loses the channels that net loses" in str(gsprune.prune_step(model, 0.5, example_inputs=X))


def test_a_copy_stays_in_step_over_further_steps_and_through_copies_of_the_model(tmp_path) -> None:
    model, dense = Pair("last"), Pair("last")
    gsprune.prune_step(model, 0.25, example_inputs=X)
    twin = copy.deepcopy(model)
    gsprune.save(model, tmp_path / "model.pt")
    gsprune.load(tmp_path / "model.pt", into=dense)
    for each in (model, twin, dense):
        report = gsprune.prune_step(each, 0.5, example_inputs=X)
        assert removed_alike(report, "net", "target")
        mix(each, "net", "target")


# -- trainable copies, which only the user knows ----------------------------------------------------------------------


def trainable_pair(runs: str = "last") -> Pair:
    torch.manual_seed(0)
    model = Pair(runs, copy.deepcopy)
    with torch.no_grad():
        for parameter in model.target.parameters():
            parameter.add_(torch.randn_like(parameter) * 2 * parameter.abs().mean())
    return model


@pytest.mark.parametrize("runs", ["first", "last", "never"])
def test_a_submodule_given_as_a_follower_follows_its_only_counterpart(runs: str) -> None:
    model = trainable_pair(runs)
    for sparsity in (0.25, 0.5):
        report = gsprune.prune_step(model, sparsity, followers=model.target, example_inputs=X)
        assert removed_alike(report, "net", "target")
    mix(model, "net", "target")


def test_a_tie_holds_in_later_steps_that_do_not_name_it() -> None:
    model = trainable_pair()
    gsprune.prune_step(model, 0.25, followers=model.target, example_inputs=X)
    assert removed_alike(gsprune.prune_step(model, 0.5), "net", "target")


def test_a_tie_named_after_a_dry_run_is_traced_anew() -> None:
    model = trainable_pair()
    gsprune.prune_step(model, 0.25, example_inputs=X, dry_run=True)
    assert removed_alike(gsprune.prune_step(model, 0.25, followers=[model.target]), "net", "target")


def test_parts_that_were_pruned_apart_cannot_be_tied_afterwards() -> None:
    model = trainable_pair()
    gsprune.prune_step(model, 0.25, example_inputs=X)
    before = {name: parameter.clone() for name, parameter in model.named_parameters()}
    with pytest.raises(ValueError, match=r"`followers` names 'target'.* pruned them apart"):
        gsprune.prune_step(model, 0.5, followers=[model.target])
    assert all(torch.equal(before[name], parameter) for name, parameter in model.named_parameters())


def test_followers_inside_and_outside_of_the_model_go_together() -> None:
    model = trainable_pair()
    outside = copy.deepcopy(model)
    report = gsprune.prune_step(model, 0.5, followers=[outside, model.target], example_inputs=X)
    assert removed_alike(report, "net", "target")
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), outside.parameters(), strict=True))


def three_unrelated() -> nn.Module:
    torch.manual_seed(0)
    parts = {name: nn.Sequential(nn.Linear(5, 16), nn.ReLU(), nn.Linear(16, 2)) for name in "abc"}
    return nn.ModuleDict(parts)


def sum_of(model: nn.Module, x: Tensor) -> Tensor:
    return sum(part(x) for part in model.values())


def test_an_ambiguous_copy_is_refused_with_its_candidates_and_a_pair_names_the_original() -> None:
    model = three_unrelated()
    with pytest.raises(
        ValueError, match=r"2 submodules have its structure: 'a', 'b'.*followers=\[\(model.c, model.a\)\]"
    ):
        gsprune.prune_step(model, 0.5, followers=model["c"], example_inputs=torch.randn(3, 5), forward=sum_of)
    report = gsprune.prune_step(
        model, 0.5, followers=[(model["c"], model["b"])], example_inputs=torch.randn(3, 5), forward=sum_of
    )
    assert removed_alike(report, "b", "c")
    assert not removed_alike(report, "a", "c")


@pytest.mark.parametrize(
    ("followers", "message"),
    [
        (lambda m: m["a"][0], "no other submodule has its classes"),
        (lambda m: [(m["a"], m["b"][0])], "must be two submodules with the same classes"),
        (lambda m: [(m["a"], m["a"])], "must be two submodules with the same classes"),
        (lambda m: [(m["a"], nn.Linear(2, 2))], "of which 1 are submodules"),
        (lambda m: [(m["a"], m["b"], m["c"])], "got 3 modules"),
    ],
)
def test_followers_inside_the_model_that_have_no_counterpart_are_refused(followers, message: str) -> None:
    model = three_unrelated()
    model["a"][0] = nn.Linear(5, 16, bias=False)
    with pytest.raises(ValueError, match=message):
        gsprune.prune_step(model, 0.5, followers=followers(model), example_inputs=torch.randn(3, 5), forward=sum_of)


class Embedding(nn.Module):
    """A layer that stores its width and compares it with the tensor's."""

    def __init__(self) -> None:
        super().__init__()
        self.layer, self.size = nn.Linear(6, 16), 16

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x).view(len(x), self.size)


class Agent(nn.Module):
    """An agent that holds its target network, which acting does not run."""

    def __init__(self) -> None:
        super().__init__()
        self.online = nn.Sequential(Embedding(), nn.ReLU(), nn.Linear(16, 3))
        self.target = copy.deepcopy(self.online)

    def forward(self, x: Tensor) -> Tensor:
        return self.online(x)


def test_integers_that_a_copy_stores_follow_although_the_call_does_not_run_it() -> None:
    x = torch.randn(4, 6)
    agent = Agent()
    for sparsity, width in ((0.25, 12), (0.5, 8)):
        gsprune.prune_step(agent, sparsity, followers=[(agent.target, agent.online)], example_inputs=x)
        assert agent.target[0].size == agent.online[0].size == width
        assert torch.equal(agent.target(x), agent.online(x))
    restored = copy.deepcopy(agent)
    gsprune.prune_step(restored, 0.75, example_inputs=x)
    assert torch.equal(restored.target(x), restored.online(x))


class TwoPaths(nn.Module):
    """A network that stores the width of its second path, which is also the first path's at the beginning."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.size = nn.Linear(6, 16), nn.Linear(6, 16), 16
        self.outputs = nn.ModuleList(nn.Linear(16, 3) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        second = self.second(x).relu().view(len(x), self.size)
        return self.outputs[0](self.first(x).relu()) + self.outputs[1](second)


def test_an_integer_follows_another_layer_than_at_first_in_a_copy_as_well() -> None:
    x = torch.randn(4, 6)
    agent = nn.ModuleDict({"online": TwoPaths(), "target": TwoPaths()})
    pair = (agent["target"], agent["online"])
    for first, second, size in ((0.25, 0.25, 12), (0.5, 0.25, 12), (0.5, 0.5, 8), (0.5, 0.75, 4)):
        gsprune.prune_step(
            agent,
            {"online.first": first, "online.second": second},
            followers=[pair],
            example_inputs=(x,),
            forward=lambda agent, x: agent["online"](x),
        )
        assert agent["online"].size == agent["target"].size == size
        assert agent["online"](x).shape == agent["target"](x).shape == (4, 3)


def test_the_call_may_run_the_copy_instead_of_the_original() -> None:
    x = torch.randn(4, 6)
    agent = Agent()
    gsprune.prune_step(
        agent,
        0.5,
        followers=[(agent.target, agent.online)],
        example_inputs=(x,),
        forward=lambda agent, x: agent.target(x),
    )
    assert agent.target[0].size == agent.online[0].size == 8
    assert agent.online(x).shape == (4, 3)


def test_integers_of_a_copy_are_restored_by_load(tmp_path: Path) -> None:
    x = torch.randn(4, 6)
    agent, restored = Agent(), Agent()
    gsprune.prune_step(agent, 0.5, followers=[(agent.target, agent.online)], example_inputs=x)
    gsprune.save(agent, tmp_path / "agent.safetensors")
    gsprune.load(tmp_path / "agent.safetensors", into=restored)
    assert torch.equal(restored.target(x), agent.target(x))
