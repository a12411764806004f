"""A small network and its graph written by hand, so that scores and selection are tested without the tracer."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import torch
from torch import Tensor, nn

from gsprune.backends import TorchBackend
from gsprune.tracing.graph import Graph, Group, Member

BACKEND = TorchBackend()


def member(tensor: str, axis: int, units: Iterable[int], role: str) -> Member:
    return Member(tensor, axis, np.array(list(units), dtype=np.int64), role)  # type: ignore[arg-type]


def graph_of(
    groups: Sequence[Group],
    shapes: Mapping[str, tuple[int, ...]],
    weight_uses: Mapping[str, float] | None = None,
) -> Graph:
    """A graph with the fields that scores and selection read."""
    return Graph(
        groups=tuple(groups),
        protected=(),
        shapes=dict(shapes),
        aliases={},
        weight_uses=weight_uses or {},
        example_shapes=((1, 3, 8, 8),),
        example_origin="given",
        inexact=(),
    )


def small_net(dtype: torch.dtype = torch.float32) -> nn.Sequential:
    """conv(3, 6) - norm - relu - conv(6, 4) - relu - flatten - linear(4 * 4 * 4, 5) on 8x8 inputs, with gradients."""
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(3, 6, 3),
        nn.BatchNorm2d(6),
        nn.ReLU(),
        nn.Conv2d(6, 4, 3),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(64, 5),
    ).to(dtype)
    with torch.no_grad():
        net[1].weight.uniform_(0.1, 1.0)
    net(torch.randn(2, 3, 8, 8, dtype=dtype)).square().sum().backward()
    return net


def small_graph(net: nn.Sequential) -> Graph:
    """The groups of `small_net`: "0" with 6 units, "3" with 4, each of which owns 16 columns of the linear layer."""
    first = Group(
        "0",
        6,
        1,
        (
            member("0.weight", 0, range(6), "out"),
            member("0.bias", 0, range(6), "out"),
            member("1.weight", 0, range(6), "out"),
            member("1.bias", 0, range(6), "out"),
            member("1.running_mean", 0, range(6), "out"),
            member("1.running_var", 0, range(6), "out"),
            member("3.weight", 1, range(6), "in"),
        ),
        "conv",
    )
    second = Group(
        "3",
        4,
        1,
        (
            member("3.weight", 0, range(4), "out"),
            member("3.bias", 0, range(4), "out"),
            member("6.weight", 1, np.repeat(np.arange(4), 16), "in"),
        ),
        "conv",
    )
    uses = {"0.weight": 36.0, "3.weight": 16.0, "6.weight": 1.0}
    return graph_of((first, second), {name: tuple(t.shape) for name, t in tensors_of(net).items()}, uses)


def tensors_of(net: nn.Module) -> dict[str, Tensor]:
    return {**dict(net.named_parameters()), **dict(net.named_buffers())}
