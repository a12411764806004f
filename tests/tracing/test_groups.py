"""The groups of small networks, written out."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from smaller_graphs import pruned_graph
from torch import Tensor, nn

import gsprune
from gsprune.networks import ImpalaEncoder
from gsprune.tracing import trace
from gsprune.tracing.graph import Graph

Table = dict[str, tuple[int, int, list[str]]]


def table(graph: Graph) -> Table:
    """Group -> (units, channels per unit, members as "tensor[axis] role")."""
    return {
        group.name: (
            group.num_units,
            group.width_per_unit,
            [f"{member.tensor}[{member.axis}] {member.role}" for member in group.members],
        )
        for group in graph.groups
    }


class Residual(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 3, padding=1)
        self.norm = nn.BatchNorm2d(4)
        self.inner = nn.Conv2d(4, 6, 3, padding=1, bias=False)
        self.outer = nn.Conv2d(6, 4, 3, padding=1)
        self.head = nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(self.stem(x))
        return self.head((x + self.outer(F.relu(self.inner(x)))).mean((2, 3)))


class Dense(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 2, 1), nn.Conv2d(3, 3, 1)
        self.head = nn.Conv2d(8, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(torch.cat([self.first(x), x, self.second(x)], 1))


class Grouped(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 6, 1)
        self.grouped = nn.Conv2d(6, 4, 1, groups=2)
        self.head = nn.Conv2d(4, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.grouped(self.stem(x)))


class Depthwise(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 3, 1)
        self.depthwise = nn.Conv2d(3, 6, 3, groups=3)
        self.head = nn.Conv2d(6, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.depthwise(self.stem(x)))


class Flat(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 2, 3)
        self.hidden = nn.Linear(8, 3)
        self.actor, self.critic = nn.Linear(3, 5), nn.Linear(3, 1)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        h = torch.tanh(self.hidden(self.conv(x).flatten(1)))
        return self.actor(h), self.critic(h)


class Chunked(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.wide = nn.Linear(3, 6)
        self.first, self.second = nn.Linear(3, 2), nn.Linear(3, 2)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        a, b = self.wide(x).chunk(2, -1)
        return self.first(a), self.second(b)


class Recurrent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.gru = nn.GRU(3, 2, batch_first=True)
        self.head = nn.Linear(2, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.gru(x)[0])


FRAMES = torch.zeros(2, 3, 4, 4)

TABLES: list[tuple[type[nn.Module], Tensor, Table]] = [
    (
        Residual,
        FRAMES,
        {
            "stem": (4, 1, ["stem.weight[0] out", "stem.bias[0] out", "norm.weight[0] out", "norm.bias[0] out",
                            "inner.weight[1] in", "outer.weight[0] out", "outer.bias[0] out", "head.weight[1] in",
                            "norm.running_mean[0] out", "norm.running_var[0] out"]),
            "inner": (6, 1, ["inner.weight[0] out", "outer.weight[1] in"]),
        },
    ),
    (
        Dense,
        FRAMES,
        {
            "first": (2, 1, ["first.weight[0] out", "first.bias[0] out", "head.weight[1] in"]),
            "second": (3, 1, ["second.weight[0] out", "second.bias[0] out", "head.weight[1] in"]),
        },
    ),
    (
        Grouped,
        FRAMES,
        {
            "stem": (3, 2, ["stem.weight[0] out", "stem.bias[0] out", "grouped.weight[1] in"]),
            "grouped": (2, 2, ["grouped.weight[0] out", "grouped.bias[0] out", "head.weight[1] in"]),
        },
    ),
    (
        Depthwise,
        FRAMES,
        {"stem": (3, 1, ["stem.weight[0] out", "stem.bias[0] out", "depthwise.weight[0] out", "depthwise.bias[0] out",
                         "head.weight[1] in"])},
    ),
    (
        Flat,
        FRAMES,
        {
            "conv": (2, 1, ["conv.weight[0] out", "conv.bias[0] out", "hidden.weight[1] in"]),
            "hidden": (3, 1, ["hidden.weight[0] out", "hidden.bias[0] out", "actor.weight[1] in",
                              "critic.weight[1] in"]),
        },
    ),
    (
        Chunked,
        torch.zeros(2, 3),
        {"wide": (3, 2, ["wide.weight[0] out", "wide.bias[0] out", "first.weight[1] in", "second.weight[1] in"])},
    ),
    (
        Recurrent,
        torch.zeros(2, 4, 3),
        {"gru": (2, 3, ["gru.weight_ih_l0[0] out", "gru.weight_hh_l0[0] out", "gru.weight_hh_l0[1] in",
                        "gru.bias_ih_l0[0] out", "gru.bias_hh_l0[0] out", "head.weight[1] in"])},
    ),
]  # fmt: skip


@pytest.mark.parametrize(("network", "x", "expected"), TABLES, ids=lambda value: getattr(value, "__name__", ""))
def test_groups_are_those_of_the_table(network: type[nn.Module], x: Tensor, expected: Table) -> None:
    graph, _ = trace(network(), x)
    assert table(graph) == expected


def test_members_number_their_units_position_by_position() -> None:
    graph, _ = trace(Flat(), FRAMES)
    columns = next(member for member in graph.group("conv").members if member.tensor == "hidden.weight")
    assert columns.units.tolist() == [0, 0, 0, 0, 1, 1, 1, 1]
    graph, _ = trace(Grouped(), FRAMES)
    assert graph.group("stem").root.units.tolist() == [0, 1, 2, 0, 1, 2]
    graph, _ = trace(Dense(), FRAMES)
    assert graph.group("second").members[-1].units.tolist() == [-1, -1, -1, -1, -1, 0, 1, 2]


def test_impala_has_three_streams_six_inner_groups_and_a_hidden_layer() -> None:
    model = nn.Sequential(ImpalaEncoder(1), nn.Linear(256, 15))
    graph, _ = trace(model, torch.zeros(1, 3, 64, 64, dtype=torch.uint8))
    assert [(group.name, group.num_units) for group in graph.groups] == [
        (f"0.sequences.{stage}.{layer}", width)
        for stage, width in enumerate((16, 32, 32))
        for layer in ("conv", "block0.conv0", "block1.conv0")
    ] + [("0.linear", 256)]
    columns = graph.groups[6].members[-1]
    assert (columns.tensor, columns.axis) == ("0.linear.weight", 1)
    assert np.bincount(columns.units).tolist() == [64] * 32


@pytest.mark.parametrize(("pooled", "width", "millions"), [(False, 1, 30.61), (True, 1, 30.09), (True, 3, 260.14)])
def test_macs_are_those_of_the_paper(pooled: bool, width: int, millions: float) -> None:
    heads = nn.ModuleDict({"actor": nn.Linear(256, 15), "critic": nn.Linear(256, 1)})
    model = nn.ModuleDict({"encoder": ImpalaEncoder(width, pooled), "heads": heads})

    def forward(model: nn.ModuleDict, frames: Tensor) -> list[Tensor]:
        features = model["encoder"](frames)
        return [head(features) for head in heads.values()]

    graph, _ = trace(model, torch.zeros(2, 3, 64, 64), forward)
    assert round(graph.macs() / 1e6, 2) == millions


class VectorProducts(nn.Module):
    """A weight that is a vector, on either side of a product."""

    def __init__(self) -> None:
        super().__init__()
        self.hidden = nn.Linear(5, 8)
        self.vector = nn.Parameter(torch.randn(8))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        h = torch.relu(self.hidden(x))
        return h @ self.vector, self.vector @ h.T, torch.dot(self.vector, h[0])


def test_macs_of_products_with_a_vector_count() -> None:
    graph = gsprune.trace(VectorProducts(), torch.randn(4, 5))
    assert [group.name for group in graph.groups] == ["hidden"]
    assert graph.macs() == 5 * 8 + 8 + 8 + 8 / 4


def test_macs_after_removal_need_no_further_trace() -> None:
    graph, _ = trace(Flat(), FRAMES)
    smaller = pruned_graph(graph, {"conv": np.array([0]), "hidden": np.array([1])})
    assert graph.macs() == 4 * 2 * 27 + 8 * 3 + 3 * 6
    assert smaller.macs() == 4 * 1 * 27 + 4 * 2 + 2 * 6


def test_kinds_are_equal_for_groups_of_equal_structure_alone() -> None:
    graph, _ = trace(nn.Sequential(ImpalaEncoder(1), nn.Linear(256, 15)), torch.zeros(1, 3, 64, 64))
    kinds = [group.kind for group in graph.groups]
    assert kinds[1] == kinds[2] == kinds[4] == kinds[8]
    assert kinds[0] == kinds[3] != kinds[1]
    assert kinds[9] not in kinds[:9]


def test_the_trail_names_the_groups_of_every_operation() -> None:
    graph, _ = trace(Flat(), FRAMES)
    assert graph.trail[0].groups == ("conv",)
    assert [set(passage.groups) for passage in graph.trail].count(
        {"conv", "hidden"}
    ) == 2  # the weight transposed, the product
    assert graph.trail[-1].groups == ("hidden",)


class Repeated(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Linear(4, 4, bias=False)
        self.b = nn.Linear(4, 4, bias=False)
        self.b.weight = self.a.weight
        self.head = nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.b(torch.relu(self.a(x))))


def test_tied_weights_are_listed_once_under_their_first_name() -> None:
    graph, _ = trace(Repeated(), torch.zeros(2, 4))
    assert graph.aliases == {"b.weight": "a.weight"}
    assert "b.weight" not in graph.shapes
    assert graph.groups == ()  # the tie makes the hidden channels those of the input


class Splitting(nn.Module):
    """Un-flattens a linear layer into (channels, length), which `reader` decides how to read."""

    def __init__(self, reader: nn.Module) -> None:
        super().__init__()
        self.grow = nn.Linear(3, 12)
        self.reader = reader

    def forward(self, x: Tensor) -> Tensor:
        return self.reader(self.grow(x).view(-1, 4, 3))


def test_an_unflattened_axis_needs_no_tie_where_one_of_its_axes_is_channels() -> None:
    graph, _ = trace(Splitting(nn.Conv1d(4, 2, 1)), torch.zeros(2, 3))
    assert graph.group("grow").root.units.tolist() == [0, 0, 0, 1, 1, 1, 2, 2, 2, 3, 3, 3]


def test_parts_of_a_split_axis_are_tied_position_by_position() -> None:
    graph, _ = trace(Splitting(nn.Sequential(nn.Flatten(), nn.Linear(12, 2))), torch.zeros(2, 3))
    assert graph.group("grow").root.units.tolist() == [0, 1, 2] * 4


def test_parts_that_the_code_counts_never_go_be_they_one_channel_each() -> None:
    class Halves(nn.Module):
        """Two channels, each a part of its own."""

        def __init__(self) -> None:
            super().__init__()
            self.wide, self.left, self.right = nn.Conv2d(3, 2, 1), nn.Conv2d(1, 4, 1), nn.Conv2d(1, 4, 1)
            self.head = nn.Conv2d(8, 2, 1)

        def forward(self, x: Tensor) -> Tensor:
            a, b = self.wide(x).chunk(2, 1)
            return self.head(torch.cat([self.left(a), self.right(b)], 1))

    graph = gsprune.trace(Halves(), torch.randn(1, 3, 4, 4))
    assert [(group.name, group.num_units) for group in graph.groups] == [("wide", 1), ("left", 4), ("right", 4)]


def test_gates_of_a_recurrent_layer_of_one_unit_stay_together() -> None:
    class Narrow(nn.Module):
        """Its cell reads past the end of weights of a wrong shape instead of failing."""

        def __init__(self) -> None:
            super().__init__()
            self.embed, self.cell = nn.Linear(4, 6), nn.GRU(6, 1, batch_first=True, bidirectional=True)
            self.head = nn.Linear(2, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(self.cell(self.embed(x))[0])

    model = Narrow()
    gsprune.prune_step(model, 0.5, example_inputs=torch.randn(2, 5, 4))
    assert {name: tuple(p.shape) for name, p in model.cell.named_parameters() if "weight" in name} == {
        "weight_ih_l0": (3, 3),
        "weight_hh_l0": (3, 1),
        "weight_ih_l0_reverse": (3, 3),
        "weight_hh_l0_reverse": (3, 1),
    }


def test_positions_of_a_kernel_are_no_channels_whatever_reads_the_weight() -> None:
    """With one input channel, spectral norm's product of the flattened weight and a vector runs over the kernel."""
    layer = nn.utils.parametrizations.spectral_norm(nn.Conv2d(1, 4, 3))
    graph = gsprune.trace(nn.Sequential(layer, nn.ReLU(), nn.Conv2d(4, 2, 1)), torch.randn(2, 1, 8, 8))
    original = "0.parametrizations.weight.original"
    assert {m.axis for group in graph.groups for m in group.members if m.tensor == original} == {0}
