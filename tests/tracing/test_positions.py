"""Channels whose positions become values keep their positions; an index that nothing uses costs no pruning."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from masked_networks import masked_copy
from torch import Tensor, nn

import gsprune

Call = Callable[[nn.Module, Tensor], object]
X = torch.randn(4, 8)


def heads(call: Call) -> tuple[int, int]:
    """Hidden width and actions of a Q network after half of its channels were asked for."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(8, 64), nn.ReLU(), nn.Linear(64, 6))
    gsprune.prune_step(model, 0.5, example_inputs=X, forward=call)
    return model[0].out_features, model[2].out_features


@pytest.mark.parametrize(
    "call",
    [
        lambda m, x: m(x).max(-1, keepdim=True)[1],
        lambda m, x: torch.min(m(x), dim=1).indices.to(torch.int32).unsqueeze(0),
        lambda m, x: m(x).argmin(1).cpu().numpy(),
        lambda m, x: m(x).argmax().item(),
        lambda m, x: m(x).topk(2, 1).indices[:, 0],
        lambda m, x: m(x).sort(1, descending=True)[1].tolist(),
        lambda m, x: m(x).kthvalue(2, 1).indices,
        lambda m, x: m(x).median(1).indices,
        lambda m, x: m(x).mode(1)[1],
        lambda m, x: torch.multinomial(m(x).softmax(1), 1),
        lambda m, x: torch.distributions.Categorical(logits=m(x)).sample(),
        lambda m, x: (m(x) > 0).nonzero(),
        lambda m, x: {"action": m(x).max(1).indices == 2},
    ],
)
def test_actions_that_leave_as_indices_keep_their_number(call: Call) -> None:
    assert heads(call) == (32, 6)


@pytest.mark.parametrize(
    "call",
    [
        lambda m, x: m(x).max(1).values,
        lambda m, x: m(x).max(1)[0].mean(),
        lambda m, x: m(x).logsumexp(1),
        lambda m, x: m(x).mean(),
        lambda m, x: (m(x).softmax(1) * m(x)).sum(1),
        lambda m, x: m(x).topk(2, 1).values,
        lambda m, x: m(x).square().sum().sqrt(),
    ],
)
def test_actions_keep_their_number_where_only_what_is_read_off_them_leaves(call: Call) -> None:
    assert heads(call) == (32, 6)


class Between(nn.Module):
    """Something between two layers, of the first one's channels."""

    def __init__(self, between: Callable[..., Tensor]) -> None:
        super().__init__()
        self.body, self.last = nn.Linear(8, 16), nn.Linear(16, 3)
        self.between = between

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.between(self, self.body(x)))


class Routed(Between):
    """The same with what routes between experts."""

    def __init__(self, between: Callable[..., Tensor]) -> None:
        super().__init__(between)
        self.gate = nn.Linear(16, 4)
        self.experts = nn.ModuleList([nn.Linear(16, 16) for _ in range(4)])
        self.codes = nn.Embedding(4, 16)


def mixture(m: Routed, h: Tensor) -> Tensor:
    best = m.gate(h).max(1)[1]
    return sum((best == index).unsqueeze(1) * expert(h) for index, expert in enumerate(m.experts))


def options(m: Routed, h: Tensor) -> Tensor:
    chosen = F.one_hot(m.gate(h).argmax(1), 4).to(h.dtype)
    return (torch.stack([expert(h) for expert in m.experts], 1) * chosen.unsqueeze(2)).sum(1)


def looked_up(m: Routed, h: Tensor) -> Tensor:
    return h + m.codes(m.gate(h).max(1).indices)


def as_number(m: Routed, h: Tensor) -> Tensor:
    return h * (1 + m.gate(h).argmax(1, keepdim=True))


@pytest.mark.parametrize("between", [mixture, options, looked_up, as_number])
def test_the_gate_keeps_its_width_and_the_rest_is_pruned_exactly(between: Callable[[Routed, Tensor], Tensor]) -> None:
    torch.manual_seed(0)
    model, x = Routed(between).double(), X.double()
    dense = copy.deepcopy(model)
    report = gsprune.prune_step(model, 0.5, example_inputs=x)
    assert model.gate.out_features == 4
    assert model.body.out_features == 8
    torch.testing.assert_close(model(x), masked_copy(dense, report.removed)(x), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(
    "reduce",
    [
        lambda h: h.relu().max(1, keepdim=True)[0],
        lambda h: h.relu().max(1, keepdim=True).values + 0 * h.argmax(1, keepdim=True),
        lambda h: h.relu().max(),
        lambda h: h.argmin().float() * 0,
    ],
)
def test_an_index_without_influence_costs_no_pruning(reduce: Callable[[Tensor], Tensor]) -> None:
    torch.manual_seed(0)
    model, x = Between(lambda _, h: h * (1 + reduce(h))).double(), X.double()
    dense = copy.deepcopy(model)
    report = gsprune.prune_step(model, 0.5, example_inputs=x)
    assert model.body.out_features == 8
    torch.testing.assert_close(model(x), masked_copy(dense, report.removed)(x), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("op", [torch.median, torch.nanmedian, torch.max, torch.min])
def test_a_reduction_without_a_dim_reads_all_channels_as_a_population(op: Callable[[Tensor], Tensor]) -> None:
    model = Between(lambda _, h: h * op(h))
    graph = gsprune.trace(model, X)
    assert [group.name for group in graph.groups] == ["body"]
    assert graph.inexact == (f"aten.{op.__name__}",)


@pytest.mark.parametrize("op", [torch.argmax, torch.argmin])
def test_a_flat_position_depends_on_every_axis(op: Callable[[Tensor], Tensor]) -> None:
    graph = gsprune.trace(Between(lambda _, h: h * op(h)), X)
    assert not graph.groups
    assert "body" in {name for item in graph.protected for name in item.names}
