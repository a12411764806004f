"""Models that hold their tensors as torchrl's losses do: in containers without submodules, read through ``vmap``."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call, stack_module_state

import gsprune
from gsprune.rewrite.tensors import aliases_of

X = torch.randn(4, 6)


def network() -> nn.Sequential:
    return nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, 8), nn.ReLU(), nn.Linear(8, 1))


class Container(nn.Module):
    """Tensors under names with dots, which `register_parameter` refuses."""

    def __init__(self, tensors: dict[str, Tensor], trainable: bool) -> None:
        super().__init__()
        for name, tensor in tensors.items():
            if trainable:
                self._parameters[name] = nn.Parameter(tensor.detach().clone())
            else:
                self._buffers[name] = tensor.detach().clone()


class Loss(nn.Module):
    """Trainable parameters, the target's as buffers, and a network of which only the code is used."""

    def __init__(self, num_networks: int = 1) -> None:
        super().__init__()
        networks = [network() for _ in range(num_networks)]
        tensors = stack_module_state(networks)[0] if num_networks > 1 else dict(networks[0].named_parameters())
        self.params, self.target_params = Container(tensors, True), Container(tensors, False)
        self.__dict__["network"] = network()
        self.num_networks = num_networks

    def named_parameters(  # type: ignore[override]  # torchrl's has no `remove_duplicate` either
        self, prefix: str = "", recurse: bool = True
    ) -> Iterator[tuple[str, nn.Parameter]]:
        return super().named_parameters(prefix=prefix, recurse=recurse)

    def outputs(self, tensors: dict[str, Any], x: Tensor) -> Tensor:
        if self.num_networks == 1:
            return functional_call(self.network, tensors, (x,))
        return torch.vmap(self.one, (0, None))(tensors, x)

    def one(self, tensors: dict[str, Tensor], x: Tensor) -> Tensor:
        y = functional_call(self.network, tensors, (x,))
        return y.reshape(x.shape[0], *y.shape[1:])

    def forward(self, x: Tensor) -> Tensor:
        with torch.no_grad():
            target = self.outputs(self.target_params._buffers, x + 1)
        return (self.outputs(self.params._parameters, x) - target).square().mean()


@pytest.mark.parametrize("num_networks", [1, 2])
def test_a_loss_that_holds_its_networks_in_containers_is_pruned(num_networks: int) -> None:
    torch.manual_seed(0)
    loss = Loss(num_networks)
    optimizer = torch.optim.Adam(loss.parameters(), lr=1e-2)
    before = []
    for step in range(6):
        value = loss(X)
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
        if step in (2, 4):
            before = [copy.deepcopy(optimizer.state[p]["exp_avg"]) for p in loss.params._parameters.values()]
            report = gsprune.prune_step(loss, 0.25 * step / 2, optimizer=optimizer, example_inputs=X)
            assert [group.after for group in report.groups] == [16 - 2 * step, 8 - step]
            for (name, parameter), moment in zip(loss.params._parameters.items(), before, strict=True):
                assert torch.equal(optimizer.state[parameter]["exp_avg"], report.slice(f"params.{name}", moment))
                assert parameter.shape == loss.target_params._buffers[name].shape
    assert loss.params._parameters["0.weight"].shape == (*[2] * (num_networks - 1), 8, 6)


def test_a_bare_container_is_pruned_with_its_target() -> None:
    torch.manual_seed(0)
    loss = Loss(2)

    def both(params: nn.Module, x: Tensor) -> list[Tensor]:
        tensors = dict(params.named_parameters())
        return [functional_call(loss.network, {n: t[i] for n, t in tensors.items()}, (x,)) for i in range(2)]

    dense = copy.deepcopy(loss.params)
    report = gsprune.prune_step(loss.params, 0.5, followers=loss.target_params, example_inputs=(X,), forward=both)
    for name, parameter in loss.params._parameters.items():
        assert torch.equal(parameter, loss.target_params._buffers[name])
        assert torch.equal(parameter, report.slice(name, dense._parameters[name]))
    assert loss.params._parameters["0.weight"].shape == (2, 8, 6)
    assert loss(X).isfinite()


def test_an_overridden_list_of_parameters_shows_ties() -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = nn.Linear(4, 4), nn.Linear(4, 4)
            self.second.weight = self.first.weight

        def named_parameters(self, prefix: str = "", recurse: bool = True) -> Any:
            found = super().named_parameters(prefix=prefix, recurse=recurse)
            return [(name, parameter) for name, parameter in found if name != "second.bias"]

    assert aliases_of(Tied()) == {"second.weight": "first.weight"}
