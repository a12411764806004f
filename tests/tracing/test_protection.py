"""What is not pruned, and the reasons given."""

from __future__ import annotations

import warnings
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import gsprune
from gsprune.tracing import trace


class Between(nn.Module):
    """A function of a hidden tensor (2, 8, 4, 4), between two layers."""

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 8, 1)
        self.function = function
        self.last = nn.LazyLinear(2)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.function(self.first(x)).flatten(1))


X = torch.randn(2, 3, 4, 4)


def reasons(function: Callable[[Tensor], Tensor]) -> dict[str, str]:
    """Layer -> reason why it keeps its width."""
    model = Between(function)
    model(X)
    graph, _ = trace(model, X)
    assert "first" not in [group.name for group in graph.groups]
    return {name: item.reason for item in graph.protected for name in item.names}


@pytest.mark.parametrize(
    ("function", "reason"),
    [
        (lambda x: torch.cumsum(x, 1), "aten.cumsum over channels"),
        (lambda x: x.sort(1).values, "aten.sort over channels"),
        (lambda x: x.topk(2, 1).values, "aten.topk over channels"),
        (lambda x: x[:, 3:], "channels cut at a number written into the code"),
        (lambda x: x[:, 5], "one channel picked by its number"),
        (lambda x: x[:, [0, 2]], "channels picked by indices written into the code"),
        (lambda x: x.tensor_split([3], 1)[0], "channels cut at a number written into the code"),
        (lambda x: x.split(3, 1)[0], "aten.split into unequal parts"),
        (lambda x: torch.roll(x, 1, 1), "channels rolled by a number written into the code"),
        (lambda x: x + CONSTANT, "aten.add with a tensor of fixed size"),
        (lambda x: torch.cdist(x.flatten(2), x.flatten(2)), "has no rule"),
        (lambda x: F.local_response_norm(x, 3), "mixes positions"),
        (lambda x: torch.fft.rfft(x, dim=1).abs(), "has no rule"),
        (lambda x: x.flatten(1) @ MATRIX, "with a tensor of fixed size"),
    ],
)
def test_channels_that_an_operation_counts_on_are_protected_with_the_reason(
    function: Callable[[Tensor], Tensor], reason: str
) -> None:
    assert reason in reasons(function)["first"]


CONSTANT = torch.randn(8, 1, 1)
MATRIX = torch.randn(128, 3)


@pytest.mark.parametrize(
    "function",
    [
        lambda x: x.flip(1),
        lambda x: x[:, :, ::2],
        lambda x: x.transpose(0, 1).reshape(8, -1).t().reshape(2, 4, 4, -1),
        lambda x: x.softmax(1),
        lambda x: x - x.mean(1, keepdim=True),
        lambda x: x.roll(1, 2),
        lambda x: torch.stack([x, x.exp()]).amax(0),
        lambda x: x.repeat(1, 2, 1, 1),
        lambda x: F.max_pool2d(x, 2),
        lambda x: torch.zeros_like(x) + x,
        lambda x: torch.zeros(2, 8, 4, 4) + x,
        lambda x: x.cumsum(2),
        lambda x: F.fold(F.unfold(x, 3, padding=1), (4, 4), 3, padding=1),
        lambda x: x.index_put((torch.tensor([True, False]),), torch.zeros(())),
        lambda x: F.rms_norm(x.movedim(1, -1), (x.shape[1],)),
        lambda x: x[torch.arange(2)],
        lambda x: x * (x > 0),
        lambda x: x.clone().mul_(2).add_(1),
        lambda x: torch.einsum("nchw,nchw->nchw", x, x),
        lambda x: F.pad(x, (1, 1, 1, 1), mode="reflect"),
        lambda x: torch.where(x > 0, x, torch.zeros(())),
        lambda x: F.grid_sample(x, torch.zeros(2, 4, 4, 2), align_corners=False),
    ],
)
def test_what_holds_for_any_number_of_channels_protects_none(function: Callable[[Tensor], Tensor]) -> None:
    model = Between(function)
    model(X)
    graph, _ = trace(model, X)
    assert [(group.name, group.num_units) for group in graph.groups] == [("first", 8)]


def test_inputs_and_outputs_are_protected_wherever_they_leave() -> None:
    class Leaky(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b, self.c = (nn.Linear(4, 4) for _ in range(3))

        def forward(self, x: Tensor) -> dict[str, list[Tensor]]:
            y = self.a(x) + x
            z = self.b(y)
            return {"hidden": [z], "last": [self.c(z)]}

    graph, _ = trace(Leaky(), torch.zeros(2, 4))
    assert graph.groups == ()
    found = {name: item.reason for item in graph.protected for name in item.names}
    assert found["a"] == "aten.add with a tensor of fixed size"
    assert found["b"] == found["c"] == "output of the network"


def test_layers_that_the_forward_does_not_use_are_named() -> None:
    model = nn.ModuleDict({"used": nn.Linear(3, 4), "head": nn.Linear(4, 2), "idle": nn.Linear(4, 9)})
    graph, _ = trace(model, torch.zeros(2, 3), forward=lambda m, x: m["head"](m["used"](x)))
    assert [group.name for group in graph.groups] == ["used"]
    (idle,) = [item for item in graph.protected if "not used" in item.reason]
    assert (idle.names, idle.channels) == (("idle",), 9)


def test_complex_parameters_are_protected() -> None:
    class Spectrum(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.head = nn.Linear(3, 4), nn.Linear(4, 2)
            self.filter = nn.Parameter(torch.randn(4, dtype=torch.complex64))

        def forward(self, x: Tensor) -> Tensor:
            return self.head((self.first(x) * self.filter).real)

    graph, _ = trace(Spectrum(), torch.zeros(2, 3))
    assert graph.groups == ()


def test_quantised_parameters_are_protected() -> None:
    class Quantised(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second, self.head = nn.Linear(3, 4), nn.Linear(4, 6), nn.Linear(6, 2)
            with warnings.catch_warnings(action="ignore"):  # torch means to give them up
                self.register_buffer("table", torch.quantize_per_tensor(torch.randn(4), 0.1, 0, torch.qint8))

        def forward(self, x: Tensor) -> Tensor:
            return self.head(self.second(self.first(x) * self.table.dequantize()))

    model, x = Quantised(), torch.randn(2, 3)
    assert [group.name for group in trace(model, x)[0].groups] == ["second"]
    gsprune.prune_step(model, 0.5, example_inputs=x)
    assert (model.second.out_features, model(x).shape) == (3, (2, 2))


def test_writing_channels_into_a_part_of_a_tensor_protects_them() -> None:
    class Shift(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.last = nn.Conv2d(3, 8, 1), nn.Conv2d(10, 2, 1)

        def forward(self, x: Tensor) -> Tensor:
            y = self.first(x)
            whole = torch.zeros(x.shape[0], 10, *x.shape[2:])
            whole[:, 1:9] = y
            return self.last(whole)

    graph, _ = trace(Shift(), X)
    assert graph.groups == ()


def test_a_layer_of_the_norms_is_noted_as_inexact_and_not_protected() -> None:
    model = nn.Sequential(nn.Linear(3, 4), nn.LayerNorm(4), nn.Linear(4, 2))
    graph, _ = trace(model, torch.zeros(2, 3))
    assert [group.name for group in graph.groups] == ["0"]
    assert graph.inexact == ("aten.native_layer_norm",)


class Sums(nn.Module):
    """A sum over channels that are not zero where they are removed."""

    def __init__(self) -> None:
        super().__init__()
        self.gate, self.head = nn.Linear(6, 8), nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        gates = torch.sigmoid(self.gate(x))
        return self.head(gates) * gates.sum(1, keepdim=True)


class Kernels(nn.Module):
    """Linear attention: positive features of queries and keys, contracted."""

    def __init__(self) -> None:
        super().__init__()
        self.q, self.k, self.v = nn.Linear(6, 8), nn.Linear(6, 8), nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        return (torch.exp(self.q(x)) @ torch.exp(self.k(x)).mT) @ self.v(x)


@pytest.mark.parametrize(("network", "op"), [(Sums, "aten.sum"), (Kernels, "aten.bmm")])
def test_sums_over_channels_that_are_not_zero_when_removed_are_inexact_and_no_failure(
    network: type[nn.Module], op: str
) -> None:
    model, x = network(), torch.randn(2, 5, 6) if network is Kernels else torch.randn(5, 6)
    assert gsprune.trace(model, x).inexact == (op,)
    assert gsprune.prune_step(model, 0.5, example_inputs=x).channel_sparsity == 0.5


def test_what_reads_only_channels_that_stay_is_exact() -> None:
    model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3), nn.Softmax(1))
    assert gsprune.trace(model, torch.randn(2, 4)).inexact == ()
