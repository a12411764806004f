"""Sizes that a forward reads off one tensor and asks of another tie the channels of both."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch
from masked_networks import masked_copy
from torch import Tensor, nn

import gsprune
from gsprune.tracing import trace


class StreamWidth(nn.Module):
    """Attention whose head width is computed from the stream, as most vision transformers write it."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = 6**-0.5
        self.embed, self.qkv = nn.Linear(5, 24), nn.Linear(24, 72)
        self.proj, self.head = nn.Linear(24, 24), nn.Linear(24, 3)
        self.sizes: list[int] = []

    def forward(self, x: Tensor) -> Tensor:
        x = self.embed(x)
        n, t, c = x.shape
        q, k, v = self.qkv(x).reshape(n, t, 3, 4, c // 4).permute(2, 0, 3, 1, 4).unbind(0)
        y = ((q * self.scale) @ k.transpose(-2, -1)).softmax(-1) @ v
        return self.head(x + self.proj(y.transpose(1, 2).reshape(n, t, c)))


class BySize(StreamWidth):
    """The same read by `size`, once for the whole width."""

    def forward(self, x: Tensor) -> Tensor:
        x = self.embed(x)
        c = x.size(-1)
        self.sizes = [c]
        q, k, v = (part.unflatten(-1, (4, -1)).transpose(1, 2) for part in self.qkv(x).chunk(3, -1))
        y = ((q * self.scale) @ k.transpose(-2, -1)).softmax(-1) @ v
        return self.head(x + self.proj(y.transpose(1, 2).reshape(*x.shape[:2], c)))


class HeadsLast(StreamWidth):
    """The heads' outputs are joined in another order than their projections were cut in, as NesT does."""

    def forward(self, x: Tensor) -> Tensor:
        x = self.embed(x)
        n, t, c = x.shape
        q, k, v = self.qkv(x).reshape(n, t, 3, 4, c // 4).permute(2, 0, 3, 1, 4).unbind(0)
        y = ((q * self.scale) @ k.transpose(-2, -1)).softmax(-1) @ v
        return self.head(x + self.proj(y.permute(0, 2, 3, 1).reshape(n, t, c)))


class OwnWidth(nn.Module):
    """A view to the tensor's own width ties nothing more."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.head = nn.Conv2d(3, 8, 3), nn.Linear(8, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x)
        n, c, h, w = x.shape
        return self.head(x.view(n, c, h * w).mean(2))


@pytest.mark.parametrize("network", [StreamWidth, BySize, HeadsLast])
@pytest.mark.parametrize("sparsity", [0.2, 0.5, 0.7])
def test_a_width_computed_from_the_stream_shrinks_with_it(network: type[nn.Module], sparsity: float) -> None:
    torch.manual_seed(0)
    model, x = network().double(), torch.randn(2, 5, 5, dtype=torch.float64)
    dense = copy.deepcopy(model)
    report = gsprune.prune_step(model, sparsity, example_inputs=x)
    assert not [item for item in report.protected if "written into the code" in item.reason]
    assert report.params_after < report.params_before
    torch.testing.assert_close(model(x), masked_copy(dense, report.removed)(x), rtol=1e-9, atol=1e-9)


def test_stream_queries_keys_and_values_are_one_group_where_one_number_speaks_of_all() -> None:
    graph, _ = trace(StreamWidth(), torch.randn(2, 5, 5))
    (group,) = graph.groups
    assert (group.num_units, group.width_per_unit) == (6, 1)


def test_the_own_width_of_a_view_leaves_every_channel_alone() -> None:
    graph, _ = trace(OwnWidth(), torch.randn(2, 3, 6, 6))
    assert [(group.name, group.num_units) for group in graph.groups] == [("conv", 8)]


def test_what_outlives_the_trace_is_a_plain_number() -> None:
    model = BySize()
    seen: list[int] = []
    model.embed.register_forward_hook(lambda module, args, output: seen.append(output.shape[-1] // 2))
    trace(model, torch.randn(2, 5, 5))
    assert seen == [12]
    assert type(pickle.loads(pickle.dumps(seen))[0]) is type(copy.deepcopy(seen)[0]) is int
    assert model.sizes == []
