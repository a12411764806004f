"""Optimizers of other libraries, rebuilt small: state in objects and attributes, wrappers, master weights."""

from __future__ import annotations

from collections import deque, namedtuple
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from masked_training import kept_part
from torch import Tensor, nn, optim

import gsprune
from gsprune.rewrite.verification import Verification

X = torch.randn(8, 6, generator=torch.Generator().manual_seed(1))
NAMES = ("0.weight", "0.bias", "2.weight", "2.bias", "4.weight", "4.bias")


def mlp(width: int = 12) -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 16), nn.Tanh(), nn.Linear(16, width), nn.Tanh(), nn.Linear(width, 4))


def train(net: nn.Module, optimizer: Any, steps: int = 1) -> float:
    for _ in range(steps):
        optimizer.zero_grad()
        loss = net(X).square().mean()
        loss.backward()
        optimizer.step()
    return loss.item()


Pair = namedtuple("Pair", "fast slow")


@dataclass(slots=True)
class Slots:
    moment: Tensor
    count: int = 0


class Plain:
    def __init__(self, moment: Tensor) -> None:
        self.inner = {"moments": [moment]}
        self.shape = moment.shape


class Private:
    __slots__ = ("__moment",)

    def __init__(self, moment: Tensor) -> None:
        self.__moment = moment


HOLDERS: dict[str, Callable[[Tensor], Any]] = {
    "deque": lambda moment: deque([moment], maxlen=3),
    "named tuple": lambda moment: Pair(moment, 1.0),
    "set": lambda moment: {moment},
    "dataclass with slots": Slots,
    "object": Plain,
    "private slot": Private,
    "objects in a deque in a dictionary": lambda moment: {"queue": deque([Slots(moment), None])},
    "object as the whole state": Plain,
    "closure": lambda moment: lambda gradient: moment.lerp_(gradient, 0.1),
    "default of an argument": lambda moment: lambda gradient, m=moment: m.add_(gradient),
    "bound argument": lambda moment: partial(torch.add, moment),
}


@pytest.mark.parametrize("name", HOLDERS)
def test_a_state_s_tensors_follow_whatever_holds_them(name: str) -> None:
    net = mlp()
    optimizer = optim.SGD(net.parameters(), 0.1)
    moments = {key: torch.randn_like(parameter) for key, parameter in net.named_parameters()}
    before = {key: moment.clone() for key, moment in moments.items()}
    for key, parameter in net.named_parameters():
        held = HOLDERS[name](moments[key])
        optimizer.state[parameter] = held if "whole" in name else {"held": held, "step": 3}
    removed = gsprune.prune_step(net, 0.5, optimizer=optimizer, example_inputs=X).removed
    assert set(removed) == set(NAMES[:5])
    for key in NAMES:
        assert torch.equal(moments[key], kept_part(before[key], removed.get(key, {})))
    if name == "object":
        assert optimizer.state[net[2].weight]["held"].shape == (6, 8)


class Wrapper:
    """As Lookahead, but the slow weights lie where `keep` puts them, and it is no torch optimizer."""

    def __init__(self, net: nn.Module, keep: Callable[[nn.Module, list[Tensor]], Any]) -> None:
        self.fast = optim.SGD(net.parameters(), 0.05, momentum=0.9)
        weights = [parameter.detach().clone() for parameter in net.parameters()]
        self.kept = keep(net, weights)
        self.weights = weights.copy  # a function is not searched for tensors
        self.model = net

    @property
    def param_groups(self) -> list[dict[str, Any]]:
        return self.fast.param_groups

    @property
    def state(self) -> dict[Tensor, Any]:
        return self.fast.state

    def zero_grad(self) -> None:
        self.fast.zero_grad()

    @torch.no_grad()
    def step(self) -> None:
        self.fast.step()
        for fast, slow in zip(self.param_groups[0]["params"], self.weights(), strict=True):
            fast.copy_(slow.lerp_(fast, 0.5))


PLACES: dict[str, Callable[[nn.Module, list[Tensor]], Any]] = {
    "list": lambda net, slow: slow,
    "list of groups": lambda net, slow: [slow],
    "deque of two lists": lambda net, slow: deque([slow[:2], slow[2:]]),
    "dictionary by parameter": lambda net, slow: dict(zip(net.parameters(), slow, strict=True)),
    "dictionary by id": lambda net, slow: {id(p): {"slow": s} for p, s in zip(net.parameters(), slow, strict=True)},
    "dictionary by name": lambda net, slow: dict(zip(NAMES, slow, strict=True)),
    "pairs": lambda net, slow: list(zip(net.parameters(), slow, strict=True)),
    "objects": lambda net, slow: [Pair(p, Plain(s)) for p, s in zip(net.parameters(), slow, strict=True)],
}


@pytest.mark.parametrize("name", PLACES)
def test_slow_weights_in_attributes_of_a_wrapper_follow(name: str) -> None:
    net = mlp()
    wrapper = Wrapper(net, PLACES[name])
    train(net, wrapper, 2)
    slow = dict(zip(NAMES, wrapper.weights(), strict=True))
    before = {key: weight.clone() for key, weight in slow.items()}
    momenta = {key: wrapper.state[p]["momentum_buffer"].clone() for key, p in net.named_parameters()}
    removed = gsprune.prune_step(net, 0.5, optimizer=wrapper, example_inputs=X).removed
    for key, parameter in net.named_parameters():
        assert torch.equal(slow[key], kept_part(before[key], removed.get(key, {})))
        expected = kept_part(momenta[key], removed.get(key, {}))
        assert torch.equal(wrapper.state[parameter]["momentum_buffer"], expected)
    first = train(net, wrapper)
    assert train(net, wrapper, 3) < first


@pytest.mark.parametrize("name", ["list", "dictionary by id", "objects"])
def test_a_failed_check_leaves_wrappers_bit_for_bit_as_they_were(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    net = mlp()
    wrapper = Wrapper(net, PLACES[name])
    train(net, wrapper, 2)
    scheduler = optim.lr_scheduler.StepLR(wrapper.fast, 1)
    tensors = [*net.parameters(), *wrapper.weights(), *[s["momentum_buffer"] for s in wrapper.state.values()]]
    before = [(id(tensor), tensor.data_ptr(), tensor.stride(), tensor.detach().clone()) for tensor in tensors]

    def fail(*args: object) -> None:
        assert wrapper.weights()[2].shape == (6, 8)
        raise RuntimeError("on purpose")

    with monkeypatch.context() as patch:
        patch.setattr(Verification, "check", fail)
        with pytest.raises(RuntimeError, match="on purpose"):
            gsprune.prune_step(net, 0.5, optimizer=wrapper, example_inputs=X)
    after = [*net.parameters(), *wrapper.weights(), *[s["momentum_buffer"] for s in wrapper.state.values()]]
    for tensor, (identity, pointer, strides, value) in zip(after, before, strict=True):
        assert (id(tensor), tensor.data_ptr(), tensor.stride()) == (identity, pointer, strides)
        assert torch.equal(tensor, value)
    train(net, wrapper)
    scheduler.step()
    assert wrapper.param_groups[0]["lr"] == pytest.approx(0.005)


def test_a_wrapper_without_a_state_dict_cannot_be_saved(tmp_path: Path) -> None:
    net = mlp()
    wrapper: Any = Wrapper(net, PLACES["list"])
    with pytest.raises(TypeError, match=r"`optimizer` \(Wrapper\) has no method 'state_dict'"):
        gsprune.save(net, tmp_path / "net.safetensors", optimizer=wrapper)
    with pytest.raises(TypeError, match=r"a wrapper with `param_groups`, `state` and `step`.*got Linear"):
        gsprune.prune_step(net, 0.5, optimizer=[wrapper, net[0]], example_inputs=X)


class Sam(optim.Optimizer):
    """davda54/sam: two steps, of which the second is the base optimizer's, with a state of its own."""

    def __init__(self, params: Iterator[nn.Parameter]) -> None:
        super().__init__(params, {"rho": 0.05})
        self.base_optimizer = optim.Adam(self.param_groups, lr=1e-2)
        self.param_groups = self.base_optimizer.param_groups

    @torch.no_grad()
    def step(self) -> None:  # type: ignore[override]
        for group in self.param_groups:
            for p in group["params"]:
                self.state[p].setdefault("old_p", p.clone()).copy_(p)
                p.add_(p.grad, alpha=group["rho"]).copy_(self.state[p]["old_p"])
        self.base_optimizer.step()


def test_the_optimizer_within_another_follows() -> None:
    net = mlp()
    sam = Sam(net.parameters())
    train(net, sam, 2)
    old, moment = sam.state[net[2].weight]["old_p"], sam.base_optimizer.state[net[2].weight]["exp_avg"]
    before = old.clone(), moment.clone()
    removed = gsprune.prune_step(net, 0.5, optimizer=sam, example_inputs=X).removed["2.weight"]
    assert torch.equal(old, kept_part(before[0], removed))
    assert torch.equal(moment, kept_part(before[1], removed))
    train(net, sam, 2)


class Masters:
    """Apex's FP16_Optimizer: the inner optimizer trains float64 copies of the model's parameters."""

    def __init__(self, net: nn.Module) -> None:
        self.low_groups = [list(net.parameters())]
        self.high_groups = [[p.detach().double().requires_grad_() for p in group] for group in self.low_groups]
        self.optimizer = optim.Adam([{"params": group} for group in self.high_groups], lr=1e-2)

    param_groups = property(lambda self: self.optimizer.param_groups)
    state = property(lambda self: self.optimizer.state)

    def zero_grad(self) -> None:
        for parameter in self.low_groups[0]:
            parameter.grad = None

    @torch.no_grad()
    def step(self) -> None:
        for low, high in zip(self.low_groups[0], self.high_groups[0], strict=True):
            high.grad = low.grad.double()
        self.optimizer.step()
        for low, high in zip(self.low_groups[0], self.high_groups[0], strict=True):
            low.copy_(high)


def test_master_weights_their_gradients_and_moments_follow() -> None:
    net = mlp()
    optimizer = Masters(net)
    train(net, optimizer, 2)
    master = optimizer.high_groups[0][2]
    held = [master, master.grad, optimizer.state[master]["exp_avg"], optimizer.state[master]["exp_avg_sq"]]
    before = [tensor.detach().clone() for tensor in held]
    removed = gsprune.prune_step(net, 0.5, optimizer=optimizer, example_inputs=X).removed["2.weight"]
    held[1] = master.grad
    assert all(torch.equal(a, kept_part(b, removed)) for a, b in zip(held, before, strict=True))
    first = train(net, optimizer)
    assert train(net, optimizer, 3) < first


def test_lists_of_another_network_s_parameters_stay() -> None:
    """A twin critic in the same optimizer has the same shapes, but is not pruned."""
    net, twin = mlp(), mlp()
    optimizer = optim.Adam([*net.parameters(), *twin.parameters()])
    optimizer.twin = list(twin.parameters())  # type: ignore[attr-defined]
    optimizer.averages = [p.detach().clone() for p in (*net.parameters(), *twin.parameters())]  # type: ignore[attr-defined]
    before = [p.detach().clone() for p in twin.parameters()]
    gsprune.prune_step(net, 0.5, optimizer=optimizer, example_inputs=X)
    assert all(torch.equal(a, b) for a, b in zip(before, twin.parameters(), strict=True))
    averages = optimizer.averages  # type: ignore[attr-defined]
    assert [a.shape for a in averages] == [p.shape for p in (*net.parameters(), *twin.parameters())]


def refused(net: nn.Module, optimizer: Any, message: str) -> None:
    before = [parameter.detach().clone() for parameter in net.parameters()]
    with pytest.raises(gsprune.RewriteError, match=message) as caught:
        gsprune.prune_step(net, 0.5, optimizer=optimizer, example_inputs=X)
    assert "nothing was changed" in str(caught.value)
    assert "report.slice" in str(caught.value)
    assert all(torch.equal(a, b) for a, b in zip(before, net.parameters(), strict=True))


@pytest.mark.parametrize(
    ("attribute", "message"),
    [
        (torch.zeros(6 * 16 + 16 + 16 * 12 + 12 + 12 * 4 + 4), "tensor of shape .368,. in `kept`"),
        ([torch.zeros(16), torch.zeros(7, 16)], "tensor of shape .7, 16. in `kept"),
        (Plain(torch.zeros(16, 3)), r"tensor of shape .16, 3. in `kept\.inner\['moments'\]\[0\]`.*'0.weight'"),
    ],
)
def test_an_attribute_of_unknown_meaning_is_refused_by_name(attribute: object, message: str) -> None:
    net = mlp()
    optimizer = optim.SGD(net.parameters(), 0.1)
    optimizer.kept = attribute  # type: ignore[attr-defined]
    refused(net, optimizer, "SGD keeps a " + message)


def test_arrays_and_weights_that_would_be_scaled_are_refused() -> None:
    net = mlp()
    optimizer = optim.SGD(net.parameters(), 0.1)
    optimizer.shadow = {"2": np.zeros((12, 16))}  # type: ignore[attr-defined]
    refused(net, optimizer, r"SGD keeps a NumPy array of shape \(12, 16\) in `shadow\['2'\]`.*'2\.weight'")
    optimizer.shadow = [parameter.detach().clone() for parameter in net.parameters()]  # type: ignore[attr-defined]
    with pytest.raises(gsprune.RewriteError, match=r"keeps 5 tensors in its attributes.*copies"):
        gsprune.prune_step(net, 0.5, optimizer=optimizer, example_inputs=X, rescale=True)
    assert net[2].weight.shape == (12, 16)


def test_containers_that_hold_themselves_end() -> None:
    net = mlp()
    optimizer = optim.SGD(net.parameters(), 0.1)
    cycle: dict[str, Any] = {"slow": {key: p.detach().clone() for key, p in net.named_parameters()}}
    cycle["self"] = cycle
    optimizer.kept = cycle  # type: ignore[attr-defined]
    optimizer.state[net[2].weight]["held"] = [cycle]
    optimizer.state[net[2].weight]["held"].append(optimizer.state[net[2].weight]["held"])
    del optimizer.state[net[2].weight]["held"][0]
    gsprune.prune_step(net, 0.5, optimizer=optimizer, example_inputs=X)
    assert all(cycle["slow"][key].shape == p.shape for key, p in net.named_parameters())


def test_a_tensor_that_two_parameters_may_be_behind_is_refused() -> None:
    net = mlp(width=16)
    optimizer = optim.SGD(net.parameters(), 0.1)
    optimizer.mean = torch.zeros(16)  # type: ignore[attr-defined]
    refused(net, optimizer, r"`mean`.*'0\.bias', '2\.bias'.*sliced in different ways")


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (iter([torch.zeros(12, 16)]), r"state 'held' of Foreign for parameter '2\.weight' is a list_iterator"),
        (np.zeros((12, 16)), r"state 'held' of Foreign for parameter '2\.weight' is a ndarray"),
        ([(12, 16)], r"state 0 in 'held' of Foreign for parameter '2\.weight' is a tuple"),
        (Slots(torch.eye(12)), r"state 'moment' in 'held' of Foreign for parameter '2\.weight' has shape \(12, 12\)"),
    ],
)
def test_a_state_that_cannot_follow_is_refused_by_name(value: object, message: str) -> None:
    class Foreign(optim.SGD): ...

    net = mlp()
    optimizer = Foreign(net.parameters(), 0.1)
    optimizer.state[net[2].weight]["held"] = value
    refused(net, optimizer, message)


@pytest.mark.parametrize("matrix", ["symmetric", "triangular"])
def test_a_preconditioner_of_a_square_parameter_is_no_moment(matrix: str) -> None:
    class Shampoo(optim.SGD): ...

    net = mlp(width=16)
    optimizer = Shampoo(net.parameters(), 0.1)
    g = torch.randn(16, 16)
    optimizer.state[net[2].weight]["precond_0"] = g @ g.mT if matrix == "symmetric" else g.triu()
    refused(
        net, optimizer, r"'precond_0' of Shampoo for parameter '2\.weight' has shape \(16, 16\).*mixes its channels"
    )
    optimizer.state[net[2].weight]["precond_0"] = torch.zeros(16, 16)
    gsprune.prune_step(net, 0.5, optimizer=optimizer, example_inputs=X)


def test_an_object_that_merely_holds_an_optimizer_is_refused_with_its_attribute() -> None:
    class Optimizer:  # tianshou's, without `param_groups`
        def __init__(self, optimizer: optim.Optimizer) -> None:
            self._optim = optimizer

        def step(self, loss: Tensor) -> None: ...

    net = mlp()
    wrapper: Any = Optimizer(optim.Adam(net.parameters()))
    with pytest.raises(TypeError, match=r"got .*test_nested.*Optimizer; pass the optimizer in its attribute '_optim'"):
        gsprune.prune_step(net, 0.5, optimizer=wrapper, example_inputs=X)
    gsprune.prune_step(net, 0.5, optimizer=wrapper._optim, example_inputs=X)
