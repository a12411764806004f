"""What leaves the traced call other than as a returned tensor keeps its width, too."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import gsprune

X = torch.randn(4, 10)


class Actor(nn.Module):
    """Two layers and a head of 6 actions; `kept` is for what a call stores."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.mu = nn.Linear(10, 64), nn.Linear(64, 6)
        self.kept: Any = {}

    def forward(self, x: Tensor) -> Tensor:
        return torch.tanh(self.mu(torch.relu(self.body(x))))


class ActorCritic(Actor):
    """The same with a second head."""

    def __init__(self) -> None:
        super().__init__()
        self.value = nn.Linear(64, 1)


def pruned(call: Callable[..., object], network: type[Actor] = Actor) -> Actor:
    torch.manual_seed(0)
    model = network()
    gsprune.prune_step(model, 0.5, example_inputs=X, forward=call)
    return model


def store(value: Any) -> Callable[[Actor, Tensor], None]:
    """A call that stores what `value` makes of the actions, and returns nothing."""

    def call(model: Actor, x: Tensor) -> None:
        model.kept = value(model(x))

    return call


@pytest.mark.parametrize(
    "call",
    [
        lambda m, x: np.asarray(m(x)),
        lambda m, x: m(x).data.squeeze(0).numpy(),
        lambda m, x: copy.deepcopy(m(x)),
        lambda m, x: pickle.dumps(m(x)),
        lambda m, x: np.from_dlpack(m(x)),
        lambda m, x: [row.tolist() for row in m(x)],
        lambda m, x: [float(a) for a in m(x)[0]],
        lambda m, x: [m(x)[0, index].item() for index in range(6)],
        store(lambda a: a),
        store(lambda a: {"actions": [a.detach()]}),
        store(lambda a: lambda: a),
    ],
)
def test_actions_that_leave_the_call_keep_their_number(call: Callable[[Actor, Tensor], object]) -> None:
    model = pruned(call)
    assert (model.body.out_features, model.mu.out_features) == (32, 6)


def test_actions_that_a_hook_gathers_keep_their_number() -> None:
    torch.manual_seed(0)
    model, gathered = Actor(), []
    model.mu.register_forward_hook(lambda module, inputs, output: gathered.append(output))
    gsprune.prune_step(model, 0.5, example_inputs=X, forward=lambda m, x: m(x).mean().item())
    assert (model.body.out_features, model.mu.out_features) == (32, 6)
    assert all("_gsprune_shadow" not in vars(tensor) for tensor in gathered)


def test_a_head_that_is_stored_beside_the_output_keeps_its_width() -> None:
    def call(model: ActorCritic, x: Tensor) -> Tensor:
        hidden = torch.relu(model.body(x))
        model.kept["logits"] = model.mu(hidden)
        return model.value(hidden)

    model = pruned(call, ActorCritic)
    assert (model.body.out_features, model.mu.out_features) == (32, 6)


@pytest.mark.parametrize("read", [lambda a: a, lambda a: a.numpy(), lambda a: a.tolist()])
def test_a_second_head_that_did_not_run_holds_the_width_that_it_may_read(read: Callable[[Tensor], object]) -> None:
    with pytest.warns(gsprune.PruneWarning, match="value was not run by the example"):
        model = pruned(lambda m, x: read(m(x)), ActorCritic)
    assert model.body.out_features == 64


def test_hidden_channels_that_are_logged_and_read_by_the_next_layer_are_pruned() -> None:
    def call(model: Actor, x: Tensor) -> Tensor:
        model.kept["hidden"] = hidden = torch.relu(model.body(x))
        return model.mu(hidden)

    model = pruned(call)
    assert (model.body.out_features, model.mu.out_features) == (32, 6)
    assert model.kept == {}


def test_hidden_channels_are_the_output_of_a_call_that_returns_nothing() -> None:
    def call(model: Actor, x: Tensor) -> None:
        model.kept = hidden = torch.relu(model.body(x))
        model.last = model.mu(hidden)

    assert not gsprune.trace(Actor(), X, forward=call).groups


def test_a_tensor_of_the_caller_that_is_written_to_is_an_output() -> None:
    out = torch.zeros(4, 6)
    model = pruned(lambda m, x: out.copy_(m(x)).sum())
    assert model.mu.out_features == 6
