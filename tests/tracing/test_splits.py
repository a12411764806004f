"""Sizes of a split that are stored or read off shapes follow the channels; those in the code keep them."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from masked_networks import masked_copy
from torch import Tensor, nn

import gsprune
from gsprune.tracing import trace


def pruned_exactly(model: nn.Module, x: Tensor, sparsity: float, **options: str) -> gsprune.PruneReport:
    """Prune in place; the small network must equal the masked one."""
    dense = copy.deepcopy(model)
    report = gsprune.prune_step(model, sparsity, example_inputs=x, **options)
    torch.testing.assert_close(model(x), masked_copy(dense, report.removed)(x), rtol=1e-9, atol=1e-9)
    return report


class Cell(nn.Module):
    """A gated cell; `cut` makes the gates' parts of their projection."""

    def __init__(self, cut: Callable[[Cell, Tensor, Tensor], tuple[Tensor, ...]], size: int = 8) -> None:
        super().__init__()
        self.cut, self.size, self.sizes = cut, size, (size, size, size)
        self.input, self.gates, self.head = nn.Linear(5, size), nn.Linear(size, 3 * size), nn.Linear(size, 2)

    def forward(self, x: Tensor) -> Tensor:
        h = torch.tanh(self.input(x))
        reset, candidate, update = self.cut(self, self.gates(h), h)
        u = torch.sigmoid(update)
        return self.head(u * torch.tanh(torch.sigmoid(reset) * candidate) + (1 - u) * h)


@pytest.mark.parametrize(
    "cut",
    [
        lambda cell, p, h: p.split([cell.size] * 3, -1),
        lambda cell, p, h: torch.split(p, (cell.size, cell.size, cell.size), dim=-1),
        lambda cell, p, h: torch.split(p, cell.sizes, dim=-1),
        lambda cell, p, h: p.split([h.shape[-1]] * 3, dim=-1),
        lambda cell, p, h: p.split([h.size(1), cell.size, p.shape[-1] // 3], 1),
        lambda cell, p, h: p.split(h.shape[-1], 1),
    ],
)
def test_gates_cut_at_sizes_that_follow_shrink_with_their_state(cut: Callable[..., tuple[Tensor, ...]]) -> None:
    torch.manual_seed(0)
    model = Cell(cut).double()
    report = pruned_exactly(model, torch.randn(3, 5, dtype=torch.float64), 0.5)
    assert (model.input.out_features, model.gates.out_features) == (4, 12)
    assert {item.reason for item in report.protected} == {"output of the network"}


@pytest.mark.parametrize(
    "cut",
    [
        lambda cell, p, h: (p[:, : cell.size], *p[:, cell.size :].chunk(2, -1)),
        lambda cell, p, h: (*p[:, : 2 * cell.size].chunk(2, -1), p[:, -cell.size :]),
        lambda cell, p, h: (p[:, : h.shape[1]], *p[:, h.shape[1] :].split(h.shape[1], 1)),
        lambda cell, p, h: (p[:, : p.shape[1] // 3], *p[:, p.shape[1] // 3 :].chunk(2, 1)),
    ],
)
def test_gates_cut_by_slices_of_any_length_shrink_with_their_state(
    cut: Callable[..., tuple[Tensor, ...]],
) -> None:
    torch.manual_seed(0)
    model = Cell(cut).double()
    report = pruned_exactly(model, torch.randn(3, 5, dtype=torch.float64), 0.5)
    assert (model.input.out_features, model.gates.out_features) == (4, 12)
    assert {item.reason for item in report.protected} == {"output of the network"}


class PartlyConvolved(nn.Module):
    """FasterNet: a convolution of the first channels. `bound` is their number, from the width of the input."""

    def __init__(self, bound: Callable[[int], int], size: int) -> None:
        super().__init__()
        self.bound, self.first, self.part = bound, nn.Conv2d(3, size, 1), nn.Conv2d(size // 4, size // 4, 3, padding=1)
        self.last = nn.Conv2d(size, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        y = self.first(x)
        bound = self.bound(y.shape[1])
        return self.last(torch.cat([self.part(y[:, :bound]), y[:, bound:].tanh()], 1))


@pytest.mark.parametrize("size", [16, 32])
def test_a_bound_that_is_a_fraction_of_the_width_follows_it(size: int) -> None:
    model = PartlyConvolved(lambda width: width // 4, size).double()
    pruned_exactly(model, torch.randn(2, 3, 5, 5, dtype=torch.float64), 0.5)
    assert (model.first.out_channels, model.part.in_channels) == (size // 2, size // 8)


def test_a_bound_in_the_code_of_a_module_keeps_the_width() -> None:
    class Fixed(PartlyConvolved):
        def forward(self, x: Tensor) -> Tensor:
            y = self.first(x)
            return self.last(torch.cat([self.part(y[:, :6]), y[:, 6:]], 1))

    graph, _ = trace(Fixed(int, 24), torch.randn(2, 3, 5, 5))
    (found,) = [item for item in graph.protected if "first" in item.names]
    assert found.reason == "channels cut at a number written into the code"


class Keys(nn.Module):
    """Queries of the stream's width beside another part, whose length the code reads off the stream."""

    def __init__(self) -> None:
        super().__init__()
        self.stream, self.both, self.head = nn.Linear(5, 8), nn.Linear(8, 16), nn.Linear(24, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stream(x)
        n = x.shape[-1]
        a, b = self.both(x).split([n, n], -1)
        return self.head(torch.cat([x, torch.tanh(a), b], -1))


def test_parts_stay_as_long_as_the_channels_whose_length_they_were_given() -> None:
    torch.manual_seed(0)
    model = Keys().double()
    with torch.no_grad():
        model.both.weight.mul_(torch.linspace(1, 9, 16)[:, None])  # a global ranking would cut the stream alone
    pruned_exactly(model, torch.randn(3, 5, dtype=torch.float64), 0.5, scope="global")
    assert model.both.out_features == 2 * model.stream.out_features < 16


class Mixer(nn.Module):
    """Mamba2's splits: gate, inputs of the convolution, and heads; and the convolution's outputs once more."""

    def __init__(self, hidden: int = 8, inner: int = 24, heads: int = 4, state: int = 6) -> None:
        super().__init__()
        self.inner, self.heads, self.head_dim, self.state = inner, heads, inner // heads, state
        self.conv_dim = inner + 2 * state
        self.in_proj = nn.Linear(hidden, inner + self.conv_dim + heads)
        self.conv = nn.Conv1d(self.conv_dim, self.conv_dim, 3, padding=1, groups=self.conv_dim)
        self.out_proj = nn.Linear(inner, hidden)

    def forward(self, x: Tensor) -> Tensor:
        n, t, _ = x.shape
        gate, rest, dt = self.in_proj(x).split([self.inner, self.conv_dim, self.heads], -1)
        rest = F.silu(self.conv(rest.transpose(1, 2)).transpose(1, 2))
        y, b, c = rest.split([self.inner, self.state, self.state], -1)
        y = y.reshape(n, t, self.heads, self.head_dim) * torch.sigmoid(dt)[..., None]
        y = torch.einsum("bts,bus,buhd->bthd", c, b, y).reshape(n, t, -1)
        return x + self.out_proj(y * F.silu(gate))


@pytest.mark.parametrize(("sparsity", "sizes"), [(0.3, (18, 3, 6, 5, 28)), (0.5, (12, 2, 6, 3, 18))])
def test_unequal_parts_shrink_on_their_own(sparsity: float, sizes: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(5, 8), Mixer(), Mixer(), nn.Linear(8, 2)).double()
    x = torch.randn(2, 7, 5, dtype=torch.float64)
    pruned_exactly(model, x, sparsity)
    for block in model[1:3]:
        assert (block.inner, block.heads, block.head_dim, block.state, block.conv_dim) == sizes
    pruned_exactly(model, x, 0.75)  # the lengths that were equal by chance part
    for block in model[1:3]:
        assert (block.inner, block.heads, block.head_dim, block.state, block.conv_dim) == (6, 1, 6, 2, 10)


class Unequal(nn.Module):
    """Two heads' inputs of unequal widths out of one layer."""

    def __init__(self, sizes: Callable[[Unequal, Tensor], list[int]]) -> None:
        super().__init__()
        self.sizes, self.few, self.rest = sizes, 4, 8
        self.trunk, self.a, self.b = nn.Linear(5, 12), nn.Linear(4, 2), nn.Linear(8, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = self.trunk(x).relu()
        a, b = x.split(self.sizes(self, x), -1)
        return self.a(a) + self.b(b)


@pytest.mark.parametrize(
    "sizes",
    [
        lambda m, x: [m.few, m.rest],
        lambda m, x: [m.few, x.shape[-1] - m.few],
        lambda m, x: [m.a.in_features, m.b.in_features],
    ],
)
def test_unequal_sizes_that_are_stored_or_computed_follow(sizes: Callable[[Unequal, Tensor], list[int]]) -> None:
    torch.manual_seed(0)
    model = Unequal(sizes).double()
    pruned_exactly(model, torch.randn(3, 5, dtype=torch.float64), 0.5)
    assert (model.trunk.out_features, model.a.in_features, model.b.in_features) == (6, 2, 4)


class Literal(Unequal):
    """The same with sizes that stand in its code."""

    def forward(self, x: Tensor) -> Tensor:
        a, b = self.trunk(x).relu().split([4, 8], -1)
        return self.a(a) + self.b(b)


def test_channels_cut_at_sizes_in_the_code_are_protected() -> None:
    graph, _ = trace(Literal(lambda m, x: []), torch.randn(3, 5))
    assert graph.groups == ()
    assert graph.protected[0].reason == "channels cut at a number written into the code"


def test_sizes_in_the_code_of_a_helper_are_protected_by_the_check() -> None:
    model = Unequal(lambda m, x: [4, 8])
    with pytest.warns(gsprune.PruneWarning, match="trunk"):
        report = gsprune.prune_step(model, 0.5, example_inputs=torch.randn(3, 5))
    assert not report.changed
    assert model.trunk.out_features == 12


class AreaAttention(nn.Module):
    """YOLO's: one view to a sum of stored sizes, then a split of each head into them."""

    def __init__(self, width: int = 32, heads: int = 4) -> None:
        super().__init__()
        self.heads, self.value_dim = heads, width // heads
        self.key_dim = self.value_dim // 2
        self.scale = self.key_dim**-0.5
        self.stem = nn.Conv2d(3, width, 1)
        self.qkv, self.proj = nn.Conv2d(width, width + 2 * self.key_dim * heads, 1), nn.Conv2d(width, width, 1)
        self.head = nn.Conv2d(width, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        n, c, h, w = x.shape
        parts = self.qkv(x).view(n, self.heads, self.key_dim * 2 + self.value_dim, h * w)
        q, k, v = parts.split([self.key_dim, self.key_dim, self.value_dim], dim=2)
        scores = (q.transpose(-2, -1) @ k * self.scale).relu()
        return self.head(x + self.proj((v @ scores.transpose(-2, -1)).view(n, c, h, w)))


def test_a_view_to_a_sum_of_stored_sizes_shrinks_with_both() -> None:
    torch.manual_seed(0)
    model = AreaAttention().double()
    pruned_exactly(model, torch.randn(2, 3, 5, 5, dtype=torch.float64), 0.5)
    assert (model.heads, model.key_dim, model.value_dim, model.qkv.out_channels) == (4, 2, 4, 32)
