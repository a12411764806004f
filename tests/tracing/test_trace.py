"""The call itself: examples, errors, wrapped and compiled models, and that nothing is left behind."""

from __future__ import annotations

import copy
import pickle
import random
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.distributions import Categorical

import gsprune
from gsprune.errors import TraceError
from gsprune.tracing import trace


class Agent(nn.Module):
    """As CleanRL writes it: no forward."""

    def __init__(self) -> None:
        super().__init__()
        self.network = nn.Sequential(nn.Conv2d(4, 8, 8, stride=4), nn.ReLU(), nn.Conv2d(8, 6, 4, stride=2), nn.ReLU(),
                                     nn.Flatten(), nn.Linear(6 * 9 * 9, 16), nn.ReLU())  # fmt: skip
        self.actor, self.critic = nn.Linear(16, 5), nn.Linear(16, 1)

    def get_value(self, x: Tensor) -> Tensor:
        return self.critic(self.network(x / 255.0))

    def get_action_and_value(self, x: Tensor, action: Tensor | None = None) -> tuple[Tensor, ...]:
        hidden = self.network(x / 255.0)
        probs = Categorical(logits=self.actor(hidden))
        action = probs.sample() if action is None else action
        return action, probs.log_prob(action), probs.entropy(), self.critic(hidden)


class Meddler(nn.Module):
    """A forward that changes all that a forward can change."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.norm = nn.Linear(3, 4), nn.BatchNorm1d(4)
        self.register_buffer("count", torch.zeros(()))
        self.register_buffer("mean", torch.zeros(4))
        self.calls = 0
        self.last: Any = None
        self.head = nn.utils.parametrizations.spectral_norm(nn.Linear(4, 2))
        self.drop = nn.Dropout(0.5)

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        self.count += 1
        h = self.norm(self.first(x))
        self.last = h
        self.mean = 0.9 * self.mean + 0.1 * h.mean(0)
        h = h + torch.rand(1) + np.random.rand() + random.random()
        return self.head(self.drop(h))


def test_an_agent_without_a_forward_is_called_by_its_method() -> None:
    graph, example = trace(Agent())
    assert [(group.name, group.num_units) for group in graph.groups] == [
        ("network.0", 8), ("network.2", 6), ("network.5", 16)]  # fmt: skip
    assert graph.example_origin == "made"
    assert graph.example_shapes == ((2, 4, 84, 84),)
    assert pickle.loads(pickle.dumps(example)).forward is example.forward


def test_a_method_can_be_named_by_forward() -> None:
    graph, _ = trace(Agent(), torch.zeros(1, 4, 84, 84), lambda agent, x: agent.get_action_and_value(x))
    assert len(graph.groups) == 3
    assert graph.example_origin == "given"
    assert [item.names for item in graph.protected] == [("actor",)]


@pytest.mark.parametrize(
    ("model", "shape"),
    [
        (nn.Linear(5, 2), (2, 5)),
        (nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(4 * 82 * 82, 2)), (2, 3, 84, 84)),
        (nn.Sequential(nn.Conv1d(3, 4, 3)), (2, 3, 64)),
        (nn.Sequential(nn.Conv3d(1, 4, 3)), (2, 1, 16, 16, 16)),
        (nn.Sequential(nn.Embedding(7, 4), nn.Linear(4, 2)), (2, 8)),
        (nn.GRU(6, 4), (2, 8, 6)),
    ],
)
def test_an_example_is_made_from_the_first_layer(model: nn.Module, shape: tuple[int, ...]) -> None:
    graph, example = trace(model)
    assert tuple(example.args[0].shape) == shape
    assert (graph.example_shapes, graph.example_origin) == ((shape,), "made")


class LastChannels(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)

    def forward(self, x: Tensor) -> Tensor:
        if x.shape[-1] != 3:
            raise ValueError("frames are channels last")
        return self.conv(x.permute(0, 3, 1, 2))


def test_channels_last_frames_are_tried() -> None:
    _, example = trace(LastChannels())
    assert tuple(example.args[0].shape) == (2, 64, 64, 3)


def test_examples_are_tuples_or_dicts_of_inputs_too() -> None:
    model = nn.Bilinear(3, 4, 2)
    inputs = {"input1": torch.zeros(2, 3), "input2": torch.zeros(2, 4)}
    for given in (inputs, tuple(inputs.values())):
        graph, _ = trace(model, given)
        assert graph.example_shapes == ((2, 3), (2, 4))


@pytest.mark.parametrize("error", ["raised", "unchanged"])
def test_tracing_leaves_no_trace(error: str) -> None:
    model = Meddler()
    model.norm.eval()
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    loss = model(torch.randn(4, 3)).sum()  # a graph that is still to be used
    states = (torch.get_rng_state(), np.random.get_state(), random.getstate())
    before = copy.deepcopy({**model.state_dict(), "calls": model.calls})
    buffers = dict(model.named_buffers())
    grads = {name: parameter.grad for name, parameter in model.named_parameters()}
    modes = [module.training for module in model.modules()]
    attributes = [sorted(module.__dict__) for module in model.modules()]
    x = torch.randn(2, 3, generator=torch.Generator().manual_seed(0))
    if error == "raised":
        with pytest.raises(TraceError):
            trace(model, x[:, :2])
    else:
        trace(model, x)
    assert torch.equal(torch.get_rng_state(), states[0])
    assert np.array_equal(np.random.get_state()[1], states[1][1])  # type: ignore[index]
    assert random.getstate() == states[2]
    for name, value in {**model.state_dict(), "calls": model.calls}.items():
        assert torch.equal(torch.as_tensor(value), torch.as_tensor(before[name])), name
    assert all(buffer is buffers[name] for name, buffer in model.named_buffers())
    assert all(parameter.grad is grads[name] for name, parameter in model.named_parameters())
    assert [module.training for module in model.modules()] == modes
    assert [sorted(module.__dict__) for module in model.modules()] == attributes
    assert not x.__dict__
    assert not any(parameter.__dict__ for parameter in model.parameters())
    loss.backward()
    assert torch.backends.mha.get_fastpath_enabled()
    assert torch._C._get_mkldnn_enabled()


def test_a_cache_of_tensors_that_the_forward_fills_is_emptied_again() -> None:
    class Cached(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.head = nn.Linear(3, 4), nn.Linear(4, 2)
            self.scale = nn.Parameter(torch.rand(4))
            self.cache: dict[str, Tensor] = {}

        def forward(self, x: Tensor) -> Tensor:
            if "scale" not in self.cache:
                self.cache["scale"] = self.scale.exp()
            return self.head(self.first(x) * self.cache["scale"])

    model, x = Cached(), torch.randn(2, 3)
    cache = model.cache
    gsprune.prune_step(model, 0.5, example_inputs=x)
    assert model.first.out_features == 2
    assert model.cache is cache
    assert not cache
    assert model(x).shape == (2, 2)


def test_training_goes_on_in_grad_mode_whatever_the_caller_is_in() -> None:
    model = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2)).requires_grad_(False)
    with torch.inference_mode():
        inside, _ = trace(model, torch.zeros(2, 3))
    with torch.no_grad():
        without, _ = trace(model, torch.zeros(2, 3))
    assert [group.name for group in inside.groups] == [group.name for group in without.groups] == ["0"]
    assert torch.is_grad_enabled()


def test_a_failing_forward_is_an_error_that_says_where() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Sequential(nn.Flatten(), nn.Linear(7, 2)))
    with pytest.raises(TraceError, match=r"`example_inputs` of shape \(2, 3, 8, 8\) in module '1.1'.*RuntimeError"):
        trace(model, torch.zeros(2, 3, 8, 8))


def test_a_network_without_a_fitting_example_asks_for_one() -> None:
    with pytest.raises(TraceError, match=r"no example could be made for Sequential \(tried .*example_inputs="):
        trace(nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(7, 2)))
    with pytest.raises(TraceError, match="gives no hint"):
        trace(nn.Sequential(nn.ReLU()))


@pytest.mark.parametrize("argument", [{"example_inputs": 3}, {"forward": 3}, {"model": 3}])
def test_arguments_of_another_kind_are_refused(argument: dict[str, Any]) -> None:
    (name,) = argument
    with pytest.raises(TypeError, match=f"`{name}` must be"):
        trace(**{"model": nn.Linear(3, 2), **argument})


def test_a_dictionary_that_the_forward_takes_whole_is_passed_in_a_tuple() -> None:
    class Reader(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(3, 2)

        def forward(self, observation: dict[str, torch.Tensor]) -> torch.Tensor:
            return self.layer(observation["state"])

    example = {"state": torch.zeros(2, 3)}
    with pytest.raises(TraceError, match=r"passed by name: pass a tuple \(inputs,\)"):
        trace(Reader(), example)
    trace(Reader(), (example,))


def test_wrapped_models_are_refused_with_the_way_out() -> None:
    with pytest.raises(TraceError, match=r"DataParallel.*prune the module inside"):
        trace(nn.DataParallel(nn.Linear(3, 2)), torch.zeros(2, 3))


def test_a_sharded_model_is_refused_without_the_advice_to_look_inside() -> None:
    class FSDPModule: ...  # `fully_shard` puts torch's class of this name among a module's classes

    class FSDPLinear(FSDPModule, nn.Linear): ...

    for model in (FSDPLinear(3, 2), nn.Sequential(FSDPLinear(3, 2))):
        with pytest.raises((TypeError, TraceError), match=r"FSDPModule.* prune the model before it is sharded"):
            gsprune.prune_step(model, 0.5, example_inputs=torch.zeros(2, 3))


def test_lazy_layers_are_refused_with_the_way_out() -> None:
    with pytest.raises(TraceError, match=r"0.weight has no shape yet: call the model once"):
        trace(nn.Sequential(nn.LazyLinear(2)), torch.zeros(2, 3))


def test_a_model_without_parameters_has_no_groups() -> None:
    graph, _ = trace(nn.ReLU(), torch.zeros(2, 3))
    assert (graph.groups, graph.protected) == ((), ())


def test_a_compiled_model_is_traced_without_being_compiled() -> None:
    calls = []

    def backend(module: Any, inputs: Any) -> Any:
        calls.append(module)
        return module

    model = torch.compile(nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2)), backend=backend)
    graph, _ = trace(model, torch.zeros(2, 3))
    assert [group.name for group in graph.groups] == ["_orig_mod.0"]
    assert not calls


def test_hooks_run_and_outputs_of_hooks_are_seen() -> None:
    model = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2))
    model[0].register_forward_hook(lambda module, args, output: torch.cat([output[:, :1], output[:, 1:]], 1))
    graph, _ = trace(model, torch.zeros(2, 3))
    assert graph.groups == ()


def test_graphs_are_equal_from_one_trace_to_the_next_and_pickle() -> None:
    model = Agent()
    one, _ = trace(model)
    other, _ = trace(copy.deepcopy(model))
    assert pickle.dumps(one) == pickle.dumps(other)
