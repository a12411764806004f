"""Equal parts that are pruned apart, of which one gets no gradient."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

import gsprune

X = torch.randn(4, 6)


def net() -> nn.Sequential:
    return nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, 8), nn.ReLU(), nn.Linear(8, 3))


class TwoNets(nn.Module):
    def __init__(self, first: nn.Module, second: nn.Module) -> None:
        super().__init__()
        self.online, self.target = first, second

    def forward(self, x: Tensor) -> Tensor:
        with torch.no_grad():
            aim = self.target(x)
        return self.online(x) - aim


def learned(model: nn.Module) -> nn.Module:
    model(X).square().sum().backward()
    return model


def messages(model: nn.Module, **options: object) -> list[str]:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for sparsity in (0.25, 0.5):
            gsprune.prune_step(model, sparsity, example_inputs=X, **options)
    return [str(each.message) for each in caught]


@pytest.mark.parametrize(
    "make",
    [
        lambda: TwoNets(net(), net()),
        lambda: TwoNets(net(), net().requires_grad_(False)),
        lambda: nn.Sequential(TwoNets(net(), net()), nn.Linear(3, 2)),
    ],
)
def test_a_part_without_gradient_that_looks_like_one_that_learns_is_named_once(make: Callable[[], nn.Module]) -> None:
    torch.manual_seed(0)
    (message,) = messages(learned(make()))
    assert "target' and" in message
    assert "followers=[(model." in message


class Agent(nn.Module):
    """An agent that holds its target network, which acting does not run."""

    def __init__(self) -> None:
        super().__init__()
        self.online = net()
        self.target = copy.deepcopy(self.online)

    def forward(self, x: Tensor) -> Tensor:
        return self.online(x)


@pytest.mark.parametrize("with_gradients", [True, False])
def test_a_copy_that_the_call_does_not_run_is_named_though_it_keeps_its_width(with_gradients: bool) -> None:
    agent = Agent()
    optimizer = torch.optim.Adam(agent.online.parameters())
    if with_gradients:
        learned(agent)
    (message,) = messages(agent, optimizer=optimizer)
    assert "pass followers=[(model.target, model.online)]" in message


def test_elements_of_a_dictionary_have_roles() -> None:
    torch.manual_seed(0)
    parts = nn.ModuleDict({"encoder": nn.Linear(6, 6), "critic": net(), "target": net()})
    learned(nn.Sequential(parts["encoder"], parts["critic"]))

    def run(parts: nn.ModuleDict, x: Tensor) -> list[Tensor]:
        x = parts["encoder"](x)
        return [parts["critic"](x), parts["target"](x)]

    (message,) = messages(parts, forward=run)
    assert "pass followers=[(model.target, model.critic)]" in message


class SharedEncoder(nn.Module):
    """Actor and critic of one structure that share their first layer; the critic's copy is frozen (CURL)."""

    def __init__(self) -> None:
        super().__init__()
        self.actor, self.critic = net(), net()
        self.actor[0].weight, self.actor[0].bias = self.critic[0].weight, self.critic[0].bias
        self.target = copy.deepcopy(self.critic).requires_grad_(False)

    def forward(self, x: Tensor) -> list[Tensor]:
        return [self.actor(x), self.critic(x) - self.target(x)]


def test_nothing_is_said_of_a_tied_copy_whose_original_shares_layers_with_another_part() -> None:
    torch.manual_seed(0)
    model = SharedEncoder()
    sum(y.square().sum() for y in model(X)).backward()
    assert messages(model) == []
    assert torch.equal(model.target[0].weight, model.critic[0].weight)


def test_the_way_out_of_the_warning_ties_them_and_is_silent() -> None:
    torch.manual_seed(0)
    model = learned(TwoNets(net(), net()))
    assert messages(model, followers=[(model.target, model.online)]) == []
    assert model.target[0].weight.shape == model.online[0].weight.shape == (8, 6)


@pytest.mark.parametrize(
    "make",
    [
        lambda: TwoNets(*[(first := net()), copy.deepcopy(first).requires_grad_(False)]),
        lambda: nn.Sequential(*[nn.Sequential(nn.Linear(6, 6), nn.ReLU(), nn.Linear(6, 6)) for _ in range(2)]),
        net,
    ],
)
def test_nothing_is_said_where_copies_are_tied_or_layers_repeat(make: Callable[[], nn.Module]) -> None:
    assert messages(learned(make())) == []


def test_nothing_is_said_where_no_gradient_is_left_to_tell_by() -> None:
    assert messages(TwoNets(net(), net())) == []
