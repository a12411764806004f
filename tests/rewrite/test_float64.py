"""A network run in float64 for once is itself, and is afterwards what it was."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from snapshots import snapshot
from torch import Tensor, nn
from torch.nn.utils import parametrizations

import gsprune
from gsprune.rewrite.float64 import call_in_float64
from gsprune.rewrite.watched_call import watched_call
from gsprune.tracing.example import Example


class Calls(nn.Module):
    """A module whose forward is a function of it."""

    def __init__(self, forward: Callable[[Any, Tensor], Any], **parts: Any) -> None:
        super().__init__()
        for name, part in parts.items():
            setattr(self, name, part)
        self.function = forward

    def forward(self, x: Tensor) -> Any:
        return self.function(self, x)


def typed(net: Any, x: Tensor) -> Tensor:
    """Types written into the code, a constant that is no buffer, tensors made in the forward and written into."""
    y = torch.zeros(len(x), net.a.out_features, dtype=torch.float32)
    y += net.a(x.to(torch.float32).float()) * net.constant
    return (y + torch.full_like(y, 0.0).masked_fill(y < 0, torch.finfo(torch.float32).min)).softmax(-1)


def recurrent(net: Any, x: Tensor) -> Tensor:
    return net.cell(x[:, None], (torch.zeros(1, len(x), 6), x.new_zeros(1, len(x), 6)))[0]


NETS: dict[str, Callable[[], nn.Module]] = {
    "typed": lambda: Calls(typed, a=nn.Linear(4, 6), constant=torch.rand(6)),
    "norms": lambda: nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.ReLU(inplace=True), nn.LayerNorm(6)),
    "recurrent": lambda: Calls(recurrent, cell=nn.LSTM(4, 6, batch_first=True)),
    "attention": lambda: Calls(lambda net, x: net.a(x[None], x[None], x[None])[0], a=nn.MultiheadAttention(4, 2)),
    "parametrized": lambda: parametrizations.spectral_norm(nn.Linear(4, 6)),
    "fourier": lambda: Calls(lambda net, x: torch.fft.rfft(net.a(x)).abs(), a=nn.Linear(4, 6)),
    "drawn": lambda: Calls(lambda net, x: net.a(x)[torch.randperm(len(x))], a=nn.Linear(4, 6)),
}


@pytest.mark.parametrize("name", NETS)
def test_outputs_are_those_in_float64_and_nothing_is_left_behind(name: str) -> None:
    torch.manual_seed(0)
    net, x = NETS[name](), torch.rand(5, 4)
    net(x).square().sum().backward()
    pointers = {key: tensor.data_ptr() for key, tensor in net.state_dict().items()}
    before = snapshot(net)
    outcome = watched_call(net, Example((x,)), call=call_in_float64)
    assert outcome.failure is None
    assert outcome.output.dtype is torch.float64
    assert snapshot(net) == before
    assert {key: tensor.data_ptr() for key, tensor in net.state_dict().items()} == pointers
    torch.testing.assert_close(outcome.output.float(), watched_call(net, Example((x,))).output, rtol=1e-4, atol=1e-4)


def written_outside(net: Any, x: Tensor) -> Tensor:
    return net.a(x + net.memory.add_(1.0))


def read_as_bits(net: Any, x: Tensor) -> Tensor:
    return net.a(x).view(torch.int32)


def of_one_type(net: Any, x: Tensor) -> Tensor:
    if net.a(x).dtype is not torch.float32:
        raise TypeError("float32 alone")
    return x


@pytest.mark.parametrize("forward", [written_outside, read_as_bits, of_one_type])
def test_what_would_be_something_else_in_float64_is_refused(forward: Callable[[Any, Tensor], Any]) -> None:
    net = Calls(forward, a=nn.Linear(4, 6), memory=torch.zeros(1))
    before = snapshot(net)
    outcome = watched_call(net, Example((torch.ones(5, 4),)), call=call_in_float64)
    assert outcome.failure is not None
    assert snapshot(net) == before
    assert float(net.memory) == 0


def test_an_interrupt_leaves_nothing_behind() -> None:
    def interrupted(net: Any, x: Tensor) -> Tensor:
        assert net.a.weight.dtype is torch.float64
        raise KeyboardInterrupt

    net = Calls(interrupted, a=nn.Linear(4, 6))
    before = snapshot(net)
    with pytest.raises(KeyboardInterrupt):
        watched_call(net, Example((torch.ones(5, 4),)), call=call_in_float64)
    assert snapshot(net) == before


def test_an_operation_of_the_user_s_own_is_not_given_float64() -> None:
    with torch.library._scoped_library("gsprune_tests", "FRAGMENT") as library:
        library.define("doubled(Tensor x) -> Tensor")
        library.impl("doubled", lambda x: 2 * x, "CPU")
        net = Calls(lambda net, x: torch.ops.gsprune_tests.doubled(net.a(x)), a=nn.Linear(4, 6))
        outcome = watched_call(net, Example((torch.ones(5, 4),)), call=call_in_float64)
        assert outcome.failure is not None
        assert "gsprune_tests.doubled.default may be another operation" in outcome.failure.message


class Noisy(nn.Module):
    """A network whose forward draws as many random numbers as a layer has channels."""

    def __init__(self, draw: Callable[[Tensor, Tensor], Tensor]) -> None:
        super().__init__()
        self.first, self.scale, self.second = nn.Linear(6, 16), nn.Linear(16, 16), nn.Linear(16, 3)
        self.draw = draw

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.first(x).relu()
        return self.second(self.draw(hidden, self.scale(hidden).sigmoid()))


DRAWS = {
    "normal": lambda h, p: h + p * torch.randn_like(h),
    "shape": lambda h, p: h + p * torch.randn(h.shape),
    "written": lambda h, p: h + p * torch.empty_like(h).normal_(),
    "written with parameters": lambda h, p: h + p * torch.empty_like(h).normal_(2.0, 0.1),
    "parameters": torch.normal,
    "mean": lambda h, p: p * torch.normal(h, 0.3),
    "size": lambda h, p: h + p * torch.normal(0.0, 1.0, size=(h.shape[1],)),
    "uniform": lambda h, p: h * (torch.rand_like(h) < p),
    "exponential": lambda h, p: h * (p - torch.empty_like(h).exponential_().log()).sigmoid(),
    "bernoulli": lambda h, p: h * torch.bernoulli(p),
    "bernoulli written": lambda h, p: h * p * torch.empty_like(h).bernoulli_(0.7),
    "dropout": lambda h, p: nn.functional.dropout(h * p, 0.3, training=True),
    "a factorized noisy layer": lambda h, p: h * p + torch.outer(torch.randn(len(h)), torch.randn(h.shape[1])),
}


@pytest.mark.parametrize("name", DRAWS)
def test_noise_of_the_width_of_a_layer_is_no_difference(name: str) -> None:
    torch.manual_seed(0)
    model = Noisy(DRAWS[name])
    report = gsprune.prune_step(model, 0.5, example_inputs=torch.randn(4, 6))
    assert [group.after for group in report.groups] == [8] * len(report.groups)
    assert model(torch.randn(4, 6)).shape == (4, 3)


def test_a_wrong_result_of_a_noisy_network_is_still_refused() -> None:
    model = Noisy(lambda h, p: (h + torch.randn_like(h)) * p * float(p.shape[1]))
    with pytest.raises(gsprune.RewriteError, match=r"differs from the masked network's by .* in float64"):
        gsprune.prune_step(model, 0.5, example_inputs=torch.randn(4, 6))


def test_noise_keeps_its_range_in_float64_so_that_a_wrong_result_is_not_hidden_by_nan() -> None:
    model = Noisy(lambda h, p: h * p * (-torch.empty_like(h).uniform_(-2, -1)).log() * float(p.shape[1]))
    with pytest.raises(gsprune.RewriteError, match=r"differs from the masked network's by .* in float64"):
        gsprune.prune_step(model, 0.5, example_inputs=torch.randn(4, 6))
