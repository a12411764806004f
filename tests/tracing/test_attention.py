"""Attention: heads stay equal, nn.MultiheadAttention keeps its widths together, scales are kept."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from masked_networks import masked_copy
from smaller_graphs import pruned_graph
from torch import Tensor, nn

from gsprune import prune_step
from gsprune.arrays import IntArray
from gsprune.tracing import trace
from gsprune.tracing.graph import Graph


def every_other_unit(graph: Graph) -> dict[str, IntArray]:
    return {group.name: np.arange(0, group.num_units - 1, 2) for group in graph.groups}


def sliced_by_hand(model: nn.Module, graph: Graph, units: Mapping[str, IntArray]) -> nn.Module:
    """A smaller copy of the model, the rows of scaled attention's queries multiplied by sqrt(rows left / before)."""
    small = copy.deepcopy(model)
    removed = graph.removed(units)
    scaled = {entry.tensor: entry for entry in graph.queries}
    for name, parameter in small.named_parameters():
        data = parameter.data
        if name in scaled:
            gone = removed.get(name, {}).get(scaled[name].axis, np.zeros(0, np.int64))
            rows = scaled[name].rows
            left = np.setdiff1d(rows, gone)
            data = data.clone()
            data[torch.from_numpy(rows)] *= (len(left) / len(rows)) ** 0.5
        for axis, positions in removed.get(name, {}).items():
            kept = np.setdiff1d(np.arange(data.shape[axis]), positions)
            data = data.index_select(axis, torch.from_numpy(kept))
        parameter.data = data
    for module in small.modules():
        if isinstance(module, nn.MultiheadAttention):
            module.embed_dim = module.kdim = module.vdim = module.out_proj.weight.shape[0]
            module.head_dim = module.embed_dim // module.num_heads
    return small


def masked(model: nn.Module, graph: Graph, units: Mapping[str, IntArray], x: Tensor) -> Tensor:
    output: Tensor = masked_copy(model, graph.removed(units))(x)
    return output


class TorchAttention(nn.Module):
    """nn.MultiheadAttention between two projections, with and without attention weights."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Linear(12, 16)
        self.first = nn.MultiheadAttention(16, 4, batch_first=True)
        self.second = nn.MultiheadAttention(16, 4, batch_first=True)
        self.head = nn.Linear(16, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.embed(x)
        x = x + self.first(x, x, x, need_weights=False)[0]
        x = x + self.second(x, x, x)[0]
        return self.head(x.mean(1))


class SplitQueries(nn.Module):
    """Separate projections, a factor between, attention that computes its own scale."""

    def __init__(self) -> None:
        super().__init__()
        self.q, self.k, self.v = nn.Linear(12, 16), nn.Linear(12, 16, bias=False), nn.Linear(12, 24)
        self.head = nn.Linear(24, 3)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (layer(x).unflatten(-1, (4, -1)).transpose(1, 2) for layer in (self.q, self.k, self.v))
        return self.head(F.scaled_dot_product_attention(q * 1.5, k, v).transpose(1, 2).flatten(2)).mean(1)


class NormedQueries(SplitQueries):
    """What lies between the projection and the attention is no factor: the width cannot be made up for."""

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (layer(x).unflatten(-1, (4, -1)).transpose(1, 2) for layer in (self.q, self.k, self.v))
        return self.head(F.scaled_dot_product_attention(torch.tanh(q), k, v).transpose(1, 2).flatten(2)).mean(1)


class LearnedQueries(SplitQueries):
    """Queries that do not depend on the input."""

    def __init__(self) -> None:
        super().__init__()
        self.latent = nn.Parameter(torch.randn(2, 3, 12))

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (
            layer(of).unflatten(-1, (4, -1)).transpose(1, 2)
            for layer, of in ((self.q, self.latent), (self.k, x), (self.v, x))
        )
        return self.head(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)).mean(1)


class LearnedQueriesOfTorch(TorchAttention):
    """Learned queries in nn.MultiheadAttention, with and without attention weights."""

    def __init__(self) -> None:
        super().__init__()
        self.latent = nn.Parameter(torch.randn(2, 3, 16))

    def forward(self, x: Tensor) -> Tensor:
        x = self.embed(x)
        pooled = self.first(self.latent, x, x, need_weights=False)[0] + self.second(self.latent, x, x)[0]
        return self.head(pooled.mean(1))


class QueriesOfTwo(SplitQueries):
    """Two attentions scale the same queries."""

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (layer(x).unflatten(-1, (4, -1)).transpose(1, 2) for layer in (self.q, self.k, self.v))
        attended = F.scaled_dot_product_attention(q, k, v) + F.scaled_dot_product_attention(q, k.tanh(), v)
        return self.head(attended.transpose(1, 2).flatten(2)).mean(1)


class ComputedScale(SplitQueries):
    """Written out, the scale computed from the width, on the logits or on the queries."""

    on_logits = True

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (layer(x).unflatten(-1, (4, -1)).transpose(1, 2) for layer in (self.q, self.k, self.v))
        if self.on_logits:
            logits = q @ k.transpose(-2, -1) / math.sqrt(q.shape[-1])
        else:
            logits = torch.einsum("bhqd,bhkd->bhqk", q * q.shape[-1] ** -0.5, k)
        return self.head((logits.softmax(-1) @ v).transpose(1, 2).flatten(2)).mean(1)


class ComputedEarly(ComputedScale):
    on_logits = False


class GivenScale(SplitQueries):
    """The computed scale is handed to torch's own attention."""

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (layer(x).unflatten(-1, (4, -1)).transpose(1, 2) for layer in (self.q, self.k, self.v))
        scale = 1 / math.sqrt(q.shape[-1])
        return self.head(F.scaled_dot_product_attention(q, k, v, scale=scale).transpose(1, 2).flatten(2)).mean(1)


class RelativePositions(SplitQueries):
    """Queries also meet a table of positions, before or after they are scaled."""

    on_scaled = False

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Parameter(torch.randn(5, 4))

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (layer(x).unflatten(-1, (4, -1)).transpose(1, 2) for layer in (self.q, self.k, self.v))
        if self.on_scaled:
            q = q * q.shape[-1] ** -0.5
            logits = q @ k.transpose(-2, -1) + torch.einsum("bhqd,kd->bhqk", q, self.table)
            y = logits.softmax(-1) @ v
        else:
            bias = torch.einsum("bhqd,kd->bhqk", q, self.table)
            y = F.scaled_dot_product_attention(q, k, v, attn_mask=bias)
        return self.head(y.transpose(1, 2).flatten(2)).mean(1)


class ScaledPositions(RelativePositions):
    on_scaled = True


class SharedQueries(SplitQueries):
    """One attention applied twice."""

    def forward(self, x: Tensor) -> Tensor:
        outputs = []
        for part in (x, x.flip(1) * 0.5):
            q, k, v = (layer(part).unflatten(-1, (4, -1)).transpose(1, 2) for layer in (self.q, self.k, self.v))
            outputs.append(F.scaled_dot_product_attention(q, k, v))
        return self.head((outputs[0] + outputs[1]).transpose(1, 2).flatten(2)).mean(1)


class StoredScale(SplitQueries):
    """The same with the scale in an attribute or in the code: nothing is to be made up for."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = 4**-0.5

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (layer(x).unflatten(-1, (4, -1)).transpose(1, 2) for layer in (self.q, self.k, self.v))
        logits = (q * self.scale) @ k.transpose(-2, -1) if x.shape[0] > 1 else q @ k.transpose(-2, -1) / 2.0
        return self.head((logits.softmax(-1) @ v).transpose(1, 2).flatten(2)).mean(1)


class GivenStoredScale(StoredScale):
    """The kept scale is handed to torch's own attention."""

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (layer(x).unflatten(-1, (4, -1)).transpose(1, 2) for layer in (self.q, self.k, self.v))
        y = F.scaled_dot_product_attention(q, k, v, scale=self.scale)
        return self.head(y.transpose(1, 2).flatten(2)).mean(1)


def example() -> Tensor:
    return torch.randn(2, 5, 12, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(
    "network",
    [
        *(TorchAttention, SplitQueries, ComputedScale, ComputedEarly, GivenScale, ScaledPositions, SharedQueries),
        *(LearnedQueries, LearnedQueriesOfTorch, QueriesOfTwo),
    ],
)
def test_a_network_sliced_by_hand_equals_the_masked_one_scale_included(network: type[nn.Module]) -> None:
    torch.manual_seed(0)
    model = network().double()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn_like(parameter) * 0.5)
    graph, _ = trace(model, example())
    units = every_other_unit(graph)
    assert graph.queries
    got = sliced_by_hand(model, graph, units)(example())
    torch.testing.assert_close(got, masked(model, graph, units, example()), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("batch", [1, 2])
def test_a_scale_that_is_stored_or_written_needs_nothing_made_up(batch: int) -> None:
    torch.manual_seed(0)
    model = StoredScale().double()
    x = example()[:batch]
    graph, _ = trace(model, x)
    units = every_other_unit(graph)
    assert set(units) == {"q", "v"}
    assert not graph.queries
    got = sliced_by_hand(model, graph, units)(x)
    torch.testing.assert_close(got, masked(model, graph, units, x), rtol=1e-9, atol=1e-9)


def test_a_stored_scale_that_is_handed_over_needs_nothing_made_up() -> None:
    graph, _ = trace(GivenStoredScale(), example().float())
    assert {group.name for group in graph.groups} == {"q", "v"}
    assert not graph.queries


def test_queries_that_are_used_elsewhere_cannot_make_up_for_a_scale() -> None:
    model = RelativePositions()
    report = prune_step(model, 0.5, example_inputs=example().float())
    assert (model.q.out_features, model.v.out_features) == (16, 12)
    assert any("scale of attention" in item.reason and "q" in item.names for item in report.protected)


def test_torch_attention_ties_its_inner_width_to_its_stream() -> None:
    graph, _ = trace(TorchAttention(), example().float())
    (group,) = graph.groups
    assert (group.name, group.num_units, group.width_per_unit) == ("embed", 4, 1)
    assert {(member.tensor, member.axis) for member in group.members} == {
        ("embed.weight", 0), ("embed.bias", 0), ("head.weight", 1),
        *((f"{layer}.{tensor}", axis) for layer in ("first", "second") for tensor, axis in (
            ("in_proj_weight", 0), ("in_proj_weight", 1), ("in_proj_bias", 0), ("out_proj.weight", 0),
            ("out_proj.weight", 1), ("out_proj.bias", 0))),
    }  # fmt: skip


def test_rows_of_the_queries_are_named_with_their_bias() -> None:
    graph, _ = trace(TorchAttention(), example().float())
    assert [(entry.tensor, entry.axis, entry.rows.tolist()) for entry in graph.queries] == [
        (f"{layer}.{tensor}", 0, list(range(16)))
        for layer in ("first", "second")
        for tensor in ("in_proj_weight", "in_proj_bias")
    ]


def test_rows_of_the_queries_are_renumbered_as_they_go() -> None:
    graph, _ = trace(SplitQueries(), example().float())
    group = next(group for group in graph.groups if group.name == "q")
    smaller = pruned_graph(graph, {"q": np.array([0])})
    assert group.num_units == 4
    assert [entry.rows.tolist() for entry in smaller.queries] == [list(range(12)), list(range(12))]


def test_a_scale_that_cannot_be_made_up_for_keeps_the_width() -> None:
    graph, _ = trace(NormedQueries(), example().float())
    assert {group.name for group in graph.groups} & {"q", "k", "v"} == {"v"}
    assert any("scale" in item.reason and {"q", "k"} & {*item.names} for item in graph.protected)


def test_heads_are_tied_and_widths_speak_of_one_head() -> None:
    graph, _ = trace(SplitQueries(), example().float())
    found = {group.name: (group.num_units, group.width_per_unit) for group in graph.groups}
    assert found == {"q": (4, 1), "v": (6, 1)}
    (root,) = [group.root for group in graph.groups if group.name == "v"]
    assert root.units.tolist() == list(range(6)) * 4
